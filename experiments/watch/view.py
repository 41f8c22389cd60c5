"""Build the view of `w2v-jax watch`: one run at length, or several with one row each."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.doctor import run_folder
from experiments.doctor.diagnosis import diagnose
from experiments.doctor.healthy_ranges import standing
from experiments.report.units import duration
from experiments.runs.algorithm_name import algorithm_name
from experiments.runs.metric_columns import pace_text
from experiments.runs.tasks import (
    CODE_SHARE,
    HELDOUT,
    OVER_CONTROL,
    PROBE,
    Task,
    beside_accuracy,
    best_line,
    speech_heard,
)
from experiments.watch.run_state import RunState, State
from experiments.watch.sparkline import Sparkline

BAR_WIDTH = 30
STYLES: dict[State, str] = {
    "starting": "cyan", "running": "green", "finishing": "cyan", "stopped": "red", "done": "bold",
}  # fmt: skip


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


@dataclasses.dataclass(frozen=True)
class Metric:
    """A column of metrics.jsonl that is shown as a row."""

    column: str
    title: str
    written: Callable[[float], str] = "{:.3f}".format


UPDATE_METRICS = (
    Metric("loss", "loss"),
    Metric("dev_loss", "validation loss"),
    Metric("dev_wer", "validation WER", _percent),
    Metric("dev_cer", "validation CER", _percent),
    Metric("dev_accuracy", "validation accuracy", _percent),
    Metric("encoder_learning_rate", "encoder's rate", "{:.1e}".format),
    Metric("head_learning_rate", "head's rate", "{:.1e}".format),
)
HELDOUT_ACCURACY = Metric("heldout_accuracy", "held-out accuracy")


def metrics_of(task: Task | None) -> tuple[Metric, ...]:
    """List the metrics that are shown of a run of pretrain with a task, or of finetune."""
    if task is None:
        return UPDATE_METRICS
    own = () if task.loss == "loss" else (Metric(task.loss, task.loss),)
    return (
        Metric("loss", "loss"),
        *own,
        Metric(task.codes, task.codes_name, "{:.0f}".format),
        Metric(CODE_SHARE, f"share of {task.entries} codes", _percent),
        Metric(task.heldout_loss, f"held-out {task.loss}"),
        HELDOUT_ACCURACY,
        Metric(HELDOUT + OVER_CONTROL, "accuracy over control", "{:.2f}".format),
        Metric(PROBE, "probe accuracy"),
    )


# A row has room for one of these columns of a run of finetune: the first that the run has.
DEV_COLUMNS = ("dev_wer", "dev_accuracy")
# A round asked these clients, and did not use their updates.
LOST = ("skipped", "late", "dropped", "too_large")


def view(states: Sequence[RunState]) -> RenderableType:
    """Show one run at length, or several with one row each."""
    return alone(states[0]) if len(states) == 1 else side_by_side(states)


def alone(run: RunState) -> RenderableType:
    """Show settings, progress, metrics and clients of a run."""
    head = Table.grid(padding=(0, 2))
    head.add_row(Text(str(run.folder), "bold", overflow="fold"), _state(run))
    parts: list[RenderableType] = [head, Text(described(run.settings)), _progress(run)]
    if run.lines:
        curves = run_folder.of_run(run.folder, run.settings, run.lines)
        parts += [
            Text(),
            _metrics(run),
            *map(Text, _remarks(run)),
            Text(f"health: {diagnose(curves).line()}"),
        ]
        if now := standing(curves):
            parts.append(Text(f"now: {now}"))
    return Group(*parts)


def health(run: RunState) -> str:
    """Give the verdict on a run and the names of what is wrong, in one line."""
    return diagnose(run_folder.of_run(run.folder, run.settings, run.lines)).line()


def side_by_side(states: Sequence[RunState]) -> RenderableType:
    """Show each run in one row, and under the table a line for each run that is not healthy."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("run", "state", "at", "each", "left", "loss", "held out", "its curve"):
        table.add_column(title, overflow="fold" if title == "run" else "ellipsis", no_wrap=title != "run")
    names = _short_names([run.folder for run in states])
    for run, name in zip(states, names, strict=True):
        held = _held_out(run)
        loss, line = run.latest("loss"), run.latest(held.column)
        table.add_row(
            Text(name),
            _state(run, short=True),
            f"{run.unit} {_of_total(run)}",
            "" if run.step_seconds is None else f"{run.step_seconds:.2g} s",
            "" if run.seconds_left is None else duration(run.seconds_left),
            "" if loss is None else f"{loss['loss']:.3f}",
            "" if line is None else f"{held.written(line[held.column])}{_beside(run, held.column, line)}",
            Sparkline(_values(run, held.column)),
        )
    told = [(name, health(run)) for run, name in zip(states, names, strict=True) if run.lines]
    return Group(table, *(Text(f"{name}: {words}") for name, words in told if words != "healthy"))


def _held_out(run: RunState) -> Metric:
    """Choose the metric of held-out clips that the row of a run shows."""
    if run.task is not None:
        return HELDOUT_ACCURACY
    metrics = {metric.column: metric for metric in UPDATE_METRICS}
    return metrics[next((name for name in DEV_COLUMNS if run.latest(name) is not None), DEV_COLUMNS[0])]


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Shorten folders by the parents that all of them share."""
    shared = os.path.commonpath([folder.absolute().parent for folder in folders])
    return [os.path.relpath(folder.absolute(), shared) for folder in folders]


def described(settings: dict[str, Any]) -> str:
    """Describe a run's settings in a line: those that tell runs apart, and those that are unusual."""
    parts = _federated(settings) if "preset" in settings else _recognition(settings)
    for name, usual in (("method", "plain"), ("precision", "fp32")):
        if (value := settings.get(name, usual)) != usual:
            parts.append(value)
    return ", ".join([*parts, f"seed {settings.get('seed')}"])


def _federated(settings: dict[str, Any]) -> list[str]:
    parts = [settings["model"], settings["preset"]]
    if settings["preset"] != "centralised":
        parts.append(algorithm_name(settings))
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
    keywords = settings.get("task") == "keywords"
    if keywords and settings["labels"] is not None:
        parts.append(f"{settings['labels']:g} % of the labels")
    learnt = f"keywords of column {settings['column']}" if keywords else settings["tokens"]
    if settings.get("local_steps"):
        held = "every speaker a client" if settings["clients"] is None else f"{settings['clients']} clients"
        learnt += f", {held}, {settings['algorithm']}"
    return [*parts, learnt, f"selected by {settings.get('select_by', 'wer')}"]


def _state(run: RunState, *, short: bool = False) -> Text:
    words: str = run.state
    if run.silent_seconds is not None and not short:
        words += f", last line {duration(run.silent_seconds)} ago"
    if run.state == "stopped" and not short:
        words += "; the same command continues it"
    return Text(words, STYLES[run.state])


def _of_total(run: RunState) -> str:
    return f"{run.done}" if run.total is None else f"{run.done}/{run.total}"


def _progress(run: RunState) -> RenderableType:
    row = Table.grid(padding=(0, 2))
    cells: list[RenderableType] = [f"{run.unit} {_of_total(run)}"]
    if run.total is not None:
        cells.append(ProgressBar(run.total, run.done, width=BAR_WIDTH))
    if run.step_seconds is not None:
        article = "an" if run.unit == "update" else "a"
        cells.append(f"{run.step_seconds:.2g} s {article} {run.unit}")
    if run.seconds_left is not None:
        cells.append(f"{duration(run.seconds_left)} left")
    row.add_row(*cells)
    return row


def _metrics(run: RunState) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for title in ("now", "change"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("since the first line")
    table.add_column("")
    for metric in metrics_of(run.task):
        values = _values(run, metric.column)
        if not values:
            continue
        line = run.latest(metric.column)
        change = "" if len(values) < 2 else _signed(metric, values[-1] - values[-2])
        beside = "" if line is None else _beside(run, metric.column, line)
        if line is not None and line is not run.lines[-1]:
            beside += f" of {run.unit} {line[run.unit]}"
        table.add_row(metric.title, metric.written(values[-1]), change, Sparkline(values), beside.strip())
    return table


def _signed(metric: Metric, change: float) -> str:
    return ("-" if change < 0 else "+") + metric.written(abs(change))


def _values(run: RunState, column: str) -> list[float]:
    return [line[column] for line in run.lines if line.get(column) is not None]


def _beside(run: RunState, column: str, line: dict[str, Any]) -> str:
    """Give the value to compare with: chance and the control, or the best so far."""
    if run.task is not None and column == run.task.best_by and (best := best_line(run.lines, run.task)):
        return f" (best {best[column]:.3f} at {best['round']})"
    if column == HELDOUT_ACCURACY.column and (words := beside_accuracy(line)):
        return f" ({words})"
    if column in ("dev_wer", "dev_cer", "dev_accuracy"):
        choose = max if column == "dev_accuracy" else min
        best = choose(
            (line for line in run.lines if line.get(column) is not None), key=lambda held: held[column]
        )
        return f" (best {_percent(best[column])} at {best[run.unit]})"
    return ""


def _pace(run: RunState) -> list[str]:
    """Say in a line what training last heard in a second; no line where that is unknown."""
    pace = pace_text(run.lines[-1])
    return [f"{run.unit} {run.done}: {', '.join(pace)}"] if pace else []


def _remarks(run: RunState) -> list[str]:
    last, remarks = run.lines[-1], []
    if run.unit == "update":
        skipped = sum(line.get("skipped_updates") or 0 for line in run.lines)
        why = "not finite, or nothing learnt" if "skipped_clients" in last else "gradients not finite"
        return [f"updates skipped: {skipped} ({why})", *_pace(run)]
    if run.settings["preset"] != "centralised":
        lost = {name: [line.get(f"{name}_clients") or 0 for line in run.lines] for name in LOST}
        counts = ", ".join(f"{sum(held)} {name.replace('_', ' ')}" for name, held in lost.items())
        now = ", ".join(f"{held[-1]} {name.replace('_', ' ')}" for name, held in lost.items() if held[-1])
        remarks.append(
            f"clients: {last.get('clients')} in round {run.done}{f' ({now})' if now else ''}; "
            f"over the run {counts}"
        )
    if (heard := speech_heard(run.lines))[0]:
        remarks.append(
            f"speech heard: {heard[0]:,.0f} s; padding: {_percent(heard[1])} of the audio computed"
        )
    remarks += _pace(run)
    taught = run.settings["preset"] == "centralised" or last.get("clients") != 0
    if taught and run.task is not None and run.task.collapses(last):
        remarks.append(run.task.warning)
    return remarks
