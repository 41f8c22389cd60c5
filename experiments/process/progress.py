"""Show the progress of a run: a bar on a terminal, plain lines elsewhere."""

import statistics
import time
from collections.abc import Callable

import rich.console
import rich.progress


class Progress:
    """Reports each step of long work when it ends, with the time left.

    The time left is the median pace of the reports so far plus the mean of what is done between them, such as
    evaluations. The first report holds compilation and is left out.
    """

    def __init__(
        self,
        total: int,
        done: int,
        unit: str = "round",
        *,
        quiet: bool = False,
        compiled: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Begin now.

        Args:
            total: units of the whole work.
            done: units that are finished.
            unit: what is counted: round or update.
            quiet: print nothing.
            compiled: whether everything is compiled already, so that the first report counts too.
            clock: gives seconds.
        """
        self._console = rich.console.Console(highlight=False, soft_wrap=True, quiet=quiet)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn(unit + " {task.completed}/{task.total}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[left]}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task(unit, total=total, completed=done, left="")
        self._unit, self._total, self._done = unit, total, done
        self._clock, self._reported, self._compiled = clock, clock(), compiled
        self._seconds: list[float] = []  # of work for a unit, by report
        self._others: list[float] = []  # of all else for a unit

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(text)

    def report(self, done: int, text: str, seconds: float, compiling: float = 0.0) -> None:
        """Print the result of the units since the last report, and move the bar.

        Args:
            done: units that are finished.
            text: their result.
            seconds: of their work.
            compiling: seconds of these in which programs were compiled, where that is known.
        """
        now, units = self._clock(), max(1, done - self._done)
        self._seconds.append(max(0.0, seconds - compiling) / units)
        self._others.append(max(0.0, now - self._reported - seconds) / units)
        self._reported, self._done = now, done
        left = self._left(self._total - done)
        self._console.print(f"{self._unit} {done}/{self._total}  {text}  {seconds:.1f} s  {left}")
        self._bar.update(self._task, completed=done, left=left)

    def _left(self, units: int) -> str:
        """Say how long the units that are left will take."""
        first = 0 if self._compiled else 1
        seconds, others = self._seconds[first:], self._others[first:]
        if not units:
            return "0 s left"
        if not seconds:
            return f"time left unknown: the first {self._unit}s compile"
        return f"{duration(units * (statistics.median(seconds) + statistics.fmean(others)))} left"


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
