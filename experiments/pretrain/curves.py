"""The curves of a pre-training run: losses, accuracy, codes and the band of its clients over rounds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.figures import PAGE_INCHES, count_axis, label_ends, message, picture
from experiments.runs.folder import read_config
from experiments.runs.metric_columns import finite_or_nan, series
from experiments.runs.tasks import (
    CODE_SHARE,
    HELDOUT,
    OVER_CONTROL,
    PROBE,
    Task,
    best_line,
    read_task_run,
    slot_seconds,
)

WINDOW = "loss_window"  # a setting that older runs lack; their band is over the clients' last local epoch
SPEAKERS = {"ms": 3, "color": "C1", "label": "held-out speech"}
Lines = list[dict[str, Any]]


def draw_run(folder: Path, path: Path) -> None:
    """Draw a run's curves into a PNG."""
    task, lines, untrained = read_task_run(folder)
    draw_curves(lines, untrained, path, task, mean=WINDOW in read_config(folder)["settings"])


def draw_curves(
    lines: Lines, untrained: dict[str, float], path: Path, task: Task, *, mean: bool = True
) -> None:
    """Draw loss, accuracy, codes, speech heard and the clients' losses over rounds into a PNG.

    Args:
        lines: the lines of metrics.jsonl, with their shares.
        untrained: content of untrained.json, with its shares.
        path: the PNG.
        task: the task of the run.
        mean: whether the band of the clients' losses is over the same steps as their mean, to draw both.
    """
    best = best_line(lines, task)
    with picture(path, 3, 2, figsize=(PAGE_INCHES, 9.5)) as axes:
        loss, accuracy, control, codes, heard, clients = axes.flat
        draw_loss(loss, lines, untrained, task)
        draw_accuracy(accuracy, lines, untrained, task)
        draw_heldout(control, lines, untrained, OVER_CONTROL, "o-", **SPEAKERS)
        control.axhline(1, color="C3", label="as its control")
        control.set(title="Accuracy over its control (higher is better)", ylabel="multiple of the control's")
        draw_codes(codes, lines, untrained, task)
        if any(line.get(PROBE) is not None for line in lines):
            heard.plot(*series(lines, PROBE), "o-", ms=3, color="C2", label="labelled clips")
            heard.set(title="Accuracy of the probe (higher is better)", ylabel="share of clips")
        else:
            draw_heard(heard, lines)
        draw_band(clients, lines, mean)
        for axis in axes.flat:
            if best is not None and axis is not clients:
                axis.axvline(best["round"], color="C2", lw=1, ls="-.")
            axis.set_xlabel("round")
            axis.title.set_fontsize(10)
            axis.grid(alpha=0.25)
        count_axis(*axes.flat)
        for axis in axes.flat:
            label_ends(axis)
        message(loss, _summary(lines, best, task))


def _summary(lines: Lines, best: Mapping[str, Any] | None, task: Task) -> str:
    """Say how far the run came, and how to read its curves."""
    evaluated = [line for line in lines if line.get(HELDOUT + OVER_CONTROL) is not None]
    words = []
    if evaluated:
        last = evaluated[-1]
        words.append(
            f"After {last['round']} rounds the model is right {last[HELDOUT + OVER_CONTROL]:.1f} times as "
            "often on held-out speech as with its context shuffled, its control."
        )
    if best is not None:
        column = task.best_by.replace("heldout_", "held-out ").replace("_", " ")
        if task.best_by == task.heldout_loss and not column.endswith("loss"):
            column += " loss"
        words.append(f"Dash-dotted line: round {best['round']}, the best by {column}.")
    words.append("One run, one seed; a band, where there is one, runs from the best to the worst client.")
    return " ".join(words)


def draw_heldout(
    axis: Any,
    lines: Lines,
    untrained: dict[str, float],
    name: str,
    *style: str,
    x: str = "round",
    **settings: Any,
) -> None:
    """Draw a held-out value over the column `x`, from the untrained model on where that has it."""
    at, values = series(lines, HELDOUT + name, x)
    if (first := untrained.get(name)) is not None:
        at, values = [0, *at], [first, *values]
    axis.plot(at, values, *style, **settings)


def draw_loss(axis: Any, lines: Lines, untrained: dict[str, float], task: Task) -> None:
    """Draw the task's loss in training and on held-out speakers."""
    axis.plot(*series(lines, task.loss), color="C0", alpha=0.6, label="training")
    draw_heldout(axis, lines, untrained, task.loss, "o-", **SPEAKERS)
    axis.axhline(finite_or_nan(untrained[task.loss]), color="grey", ls=":", label="untrained")
    axis.set(title=f"{task.loss_name.capitalize()} (lower is better)", ylabel="nats per masked frame")


def draw_accuracy(axis: Any, lines: Lines, untrained: dict[str, float], task: Task) -> None:
    """Draw the held-out accuracy, its control and that of chance."""
    draw_heldout(axis, lines, untrained, "accuracy", "o-", **SPEAKERS)
    draw_heldout(axis, lines, untrained, "shuffled_accuracy", color="C3", label="context shuffled")
    draw_heldout(axis, lines, untrained, "chance_accuracy", "--", color="grey", label="chance")
    axis.set(title=f"The model {task.hits} (higher is better)", ylabel=task.accuracy_unit)
    axis.set_ylim(bottom=0)


def draw_codes(axis: Any, lines: Lines, untrained: dict[str, float], task: Task) -> None:
    """Draw the codes as a share of all, the share of a collapsed model, and that of fixed targets."""
    noise = "training, with noise" if task.trains_codes else "training"
    axis.plot(*series(lines, CODE_SHARE), color="C0", alpha=0.6, label=noise)
    draw_heldout(axis, lines, untrained, CODE_SHARE, "o-", **SPEAKERS)
    if not task.trains_codes:
        share = finite_or_nan(untrained["code_perplexity"]) / task.entries
        axis.axhline(share, color="grey", ls="--", label="the frames' own codes")
    axis.axhline(task.groups / task.entries, color="red", ls=":", label="collapse")
    axis.set(
        title=f"{task.codes_name.capitalize()} (perplexity)", ylabel=f"share of all {task.entries} entries"
    )
    axis.set_ylim(bottom=0)


def draw_heard(axis: Any, lines: Lines) -> None:
    """Draw the hours of speech that all rounds so far heard, and of the audio computed for it."""
    heard = [line for line in lines if line.get("audio_seconds") is not None]
    rounds, seconds = series(heard, "audio_seconds")
    axis.plot(rounds, np.cumsum(seconds) / 3600, color="C0", label="speech heard")
    slots = np.cumsum([slot_seconds(line) for line in heard]) / 3600
    axis.plot(rounds, slots, ":", color="grey", label="computed, with padding")
    axis.set(title="Audio, with repeats", ylabel="hours")
    axis.set_ylim(bottom=0)


def draw_band(axis: Any, lines: Lines, mean: bool) -> None:
    """Draw the losses of the best and the worst client, and the mean; without clients, the updates' norm."""
    if not any(line.get("client_loss_min") is not None for line in lines):
        axis.plot(*series(lines, "update_norm"), label="size of the update")
        axis.set(title="Parameter change in each stretch", ylabel="norm")
        return
    # A round that reached nobody has no band: the gap stays open.
    band = [[finite_or_nan(line.get(f"client_loss_{end}")) for line in lines] for end in ("min", "max")]
    rounds = [line["round"] for line in lines]
    axis.fill_between(rounds, *band, alpha=0.3)
    if mean:
        axis.plot(*series(lines, "loss"), color="C0", lw=1, label="mean of the clients")
    axis.set(title="Training loss across clients", ylabel="nats per masked frame")
