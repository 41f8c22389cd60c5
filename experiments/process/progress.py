"""Show the progress of a run: a bar on a terminal, plain lines elsewhere."""

import time
from typing import Any

import rich.console
import rich.progress

COLLAPSED_PERPLEXITY = 4.0  # each of the two groups uses two entries


class Progress:
    """Reports each step of long work when it ends, with the time left."""

    def __init__(self, total: int, done: int, unit: str = "round", *, quiet: bool = False):
        self._console = rich.console.Console(highlight=False, soft_wrap=True, quiet=quiet)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn(unit + " {task.completed}/{task.total}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[left]}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task(unit, total=total, completed=done, left="")
        self._unit, self._total, self._first, self._started = unit, total, done, time.perf_counter()

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(text)

    def report(self, done: int, text: str, seconds: float) -> None:
        """Print the result of the last step and its seconds, and move the bar."""
        each = (time.perf_counter() - self._started) / max(1, done - self._first)
        left = f"{duration(each * (self._total - done))} left"
        self._console.print(f"{self._unit} {done}/{self._total}  {text}  {seconds:.1f} s  {left}")
        self._bar.update(self._task, completed=done, left=left)

    def round(self, line: dict[str, Any]) -> None:
        """Report a round of pre-training from its line of metrics.jsonl."""
        task = "contrastive" if "contrastive" in line else "loss"
        text = f"loss {line['loss']:.3f}  "
        if task != "loss":
            text += f"{task} {line[task]:.3f}  "
        text += f"codes {line['code_perplexity']:.0f}"
        if "heldout_accuracy" in line:
            text += (
                f"  held-out {task} {line[f'heldout_{task}']:.3f} "
                f"accuracy {line['heldout_accuracy']:.3f} "
                f"(chance {line['chance_accuracy']:.3f})"
            )
        if "probe_accuracy" in line:
            text += f"  probe {line['probe_accuracy']:.3f}"
        if line["clients"] == 0 and line.get("dropped_clients", 0) + line.get("late_clients", 0):
            text = "no client answered"
        elif line["code_perplexity"] < COLLAPSED_PERPLEXITY:
            text += "  CODEBOOK COLLAPSING: nearly all frames share a code"
        if line["skipped_clients"]:
            text += f"  {line['skipped_clients']} clients left out"
        self.report(line["round"], text, line["round_seconds"])


def duration(seconds: float) -> str:
    """Format seconds in words: 42 s, 3 min 20 s, 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def stage(text: str) -> None:
    """Print on standard error what a command does now, so that long work does not look stuck."""
    rich.console.Console(stderr=True, highlight=False, soft_wrap=True).print(f"{text} ...")
