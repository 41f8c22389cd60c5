"""What `w2v-jax watch` shows: one run at length, several in a row each."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.process.progress import COLLAPSED_PERPLEXITY
from experiments.report.units import duration
from experiments.watch.run_state import Look, State
from experiments.watch.sparkline import Sparkline

BAR_WIDTH = 30
STYLES: dict[State, str] = {
    "starting": "cyan", "running": "green", "finishing": "cyan", "stopped": "red", "done": "bold",
}  # fmt: skip


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


@dataclasses.dataclass(frozen=True)
class Metric:
    """A column of metrics.jsonl as a row."""

    column: str
    title: str
    written: Callable[[float], str] = "{:.3f}".format


METRICS = {
    "round": (
        Metric("loss", "loss"),
        Metric("contrastive", "contrastive"),
        Metric("code_perplexity", "codes in use", "{:.0f}".format),
        Metric("heldout_loss", "held-out loss"),
        Metric("heldout_accuracy", "held-out accuracy"),
    ),
    "update": (
        Metric("loss", "loss"),
        Metric("dev_loss", "validation loss"),
        Metric("dev_wer", "validation WER", _percent),
        Metric("dev_cer", "validation CER", _percent),
        Metric("encoder_learning_rate", "encoder's rate", "{:.1e}".format),
        Metric("head_learning_rate", "head's rate", "{:.1e}".format),
    ),
}
HELD_OUT = {"round": METRICS["round"][-1], "update": METRICS["update"][2]}  # the one that a row has room for
# Clients that a round asked and did not use.
LOST = ("skipped", "late", "dropped", "too_large")


def view(looks: Sequence[Look]) -> RenderableType:
    """One run at length, or several side by side."""
    return alone(looks[0]) if len(looks) == 1 else side_by_side(looks)


def alone(look: Look) -> RenderableType:
    """Settings, progress, metrics and clients of a run."""
    head = Table.grid(padding=(0, 2))
    head.add_row(Text(str(look.folder), "bold", overflow="fold"), _state(look))
    parts: list[RenderableType] = [head, Text(described(look.settings)), _progress(look)]
    if look.lines:
        parts += [Text(), _metrics(look), *map(Text, _remarks(look))]
    return Group(*parts)


def side_by_side(looks: Sequence[Look]) -> RenderableType:
    """A row a run."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("run", "state", "at", "each", "left", "loss", "held out", "its curve"):
        table.add_column(title, overflow="fold" if title == "run" else "ellipsis", no_wrap=title != "run")
    names = _short_names([look.folder for look in looks])
    for look, name in zip(looks, names, strict=True):
        held = HELD_OUT[look.unit]
        loss, line = look.latest("loss"), look.latest(held.column)
        table.add_row(
            Text(name),
            _state(look, short=True),
            f"{look.unit} {_of_total(look)}",
            "" if look.step_seconds is None else f"{look.step_seconds:.2g} s",
            "" if look.seconds_left is None else duration(look.seconds_left),
            "" if loss is None else f"{loss['loss']:.3f}",
            "" if line is None else f"{held.written(line[held.column])}{_beside(look, held.column, line)}",
            Sparkline(_values(look, held.column)),
        )
    return table


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Folders without the parents that all share."""
    shared = os.path.commonpath([folder.absolute().parent for folder in folders])
    return [os.path.relpath(folder.absolute(), shared) for folder in folders]


def described(settings: dict[str, Any]) -> str:
    """A run's settings in a line: what distinguishes runs, and what is not as usual."""
    parts = _federated(settings) if "rounds" in settings else _recognition(settings)
    for name, usual in (("method", "plain"), ("precision", "fp32")):
        if (value := settings.get(name, usual)) != usual:
            parts.append(value)
    return ", ".join([*parts, f"seed {settings.get('seed')}"])


def _federated(settings: dict[str, Any]) -> list[str]:
    parts = [settings["model"], settings["preset"]]
    if settings["preset"] != "centralised":
        parts.append(settings["aggregation"])
        of = "" if settings["clients"] is None else f" of {settings['clients']}"
        parts.append(f"{settings['clients_per_round']}{of} clients a round")
    if (optimizer := settings.get("server_optimizer", "fedavg")) != "fedavg":
        parts.append(optimizer)
    if (corruption := settings.get("corruption", "none")) != "none":
        parts.append(f"{settings['corrupted_clients']} clients with {corruption}")
    if settings.get("init"):
        parts.append(f"from {settings['init']}")
    return parts


def _recognition(settings: dict[str, Any]) -> list[str]:
    parts = [f"fine-tuning from {settings['init']}", *filter(None, [settings["model"]])]
    if settings["features"] != "encoder":
        parts.append(settings["features"])
    if settings["freeze"] != "none":
        parts.append(f"{settings['freeze']} frozen")
    return [*parts, settings["tokens"], f"selected by {settings.get('select_by', 'wer')}"]


def _state(look: Look, *, short: bool = False) -> Text:
    words: str = look.state
    if look.silent_seconds is not None and not short:
        words += f", last line {duration(look.silent_seconds)} ago"
    if look.state == "stopped" and not short:
        words += "; the same command continues it"
    return Text(words, STYLES[look.state])


def _of_total(look: Look) -> str:
    return f"{look.done}" if look.total is None else f"{look.done}/{look.total}"


def _progress(look: Look) -> RenderableType:
    row = Table.grid(padding=(0, 2))
    cells: list[RenderableType] = [f"{look.unit} {_of_total(look)}"]
    if look.total is not None:
        cells.append(ProgressBar(look.total, look.done, width=BAR_WIDTH))
    if look.step_seconds is not None:
        article = "an" if look.unit == "update" else "a"
        cells.append(f"{look.step_seconds:.2g} s {article} {look.unit}")
    if look.seconds_left is not None:
        cells.append(f"{duration(look.seconds_left)} left")
    row.add_row(*cells)
    return row


def _metrics(look: Look) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for title in ("now", "change"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("since the first line")
    table.add_column("")
    for metric in METRICS[look.unit]:
        values = _values(look, metric.column)
        if not values:
            continue
        line = look.latest(metric.column)
        change = "" if len(values) < 2 else _signed(metric, values[-1] - values[-2])
        beside = "" if line is None else _beside(look, metric.column, line)
        if line is not None and line is not look.lines[-1]:
            beside += f" of {look.unit} {line[look.unit]}"
        table.add_row(metric.title, metric.written(values[-1]), change, Sparkline(values), beside.strip())
    return table


def _signed(metric: Metric, change: float) -> str:
    return ("-" if change < 0 else "+") + metric.written(abs(change))


def _values(look: Look, column: str) -> list[float]:
    return [line[column] for line in look.lines if line.get(column) is not None]


def _beside(look: Look, column: str, line: dict[str, Any]) -> str:
    """What a value is to be seen beside: chance, or the best so far."""
    if column == "heldout_accuracy" and line.get("chance_accuracy") is not None:
        return f" (chance {line['chance_accuracy']:.3f})"
    if column in ("dev_wer", "dev_cer"):
        best = min(
            (line for line in look.lines if line.get(column) is not None), key=lambda held: held[column]
        )
        return f" (best {_percent(best[column])} at {best[look.unit]})"
    return ""


def _remarks(look: Look) -> list[str]:
    last, remarks = look.lines[-1], []
    if look.unit == "update":
        skipped = sum(line.get("skipped_updates") or 0 for line in look.lines)
        return [f"updates skipped, their gradients not finite: {skipped}"]
    if look.settings["preset"] != "centralised":
        lost = {name: [line.get(f"{name}_clients") or 0 for line in look.lines] for name in LOST}
        counts = ", ".join(f"{sum(held)} {name.replace('_', ' ')}" for name, held in lost.items())
        now = ", ".join(f"{held[-1]} {name.replace('_', ' ')}" for name, held in lost.items() if held[-1])
        remarks.append(
            f"clients: {last.get('clients')} in round {look.done}{f' ({now})' if now else ''}; "
            f"over the run {counts}"
        )
    taught = look.settings["preset"] == "centralised" or last.get("clients") != 0
    if taught and (last.get("code_perplexity") or COLLAPSED_PERPLEXITY) < COLLAPSED_PERPLEXITY:
        remarks.append("CODEBOOK COLLAPSING: nearly all frames share a code")
    return remarks
