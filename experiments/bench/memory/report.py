"""The report of `bench memory`."""

from pathlib import Path
from typing import Any

from experiments.report.figures import (
    PAGE_INCHES,
    label_points,
    legend_above,
    message,
    pareto_front,
    picture,
)
from experiments.report.footer import footer
from experiments.report.tables import table
from experiments.report.units import GIGA, gigabytes
from w2v_jax import memory_methods

ON_DEVICE = (
    "Each row is a process that starts its backend, makes its parameters and trains. The memory is the "
    "accelerator's: the most that jax's allocator gave out. Compiling: the same for the first process, which "
    "compiled and tried out kernels; the cache of compilations served the others. Plan: the compiler's plan "
    "of the step's arguments, outputs and temporaries."
)
ON_HOST = (
    "Each row is a process that idles (everything imported, the backend started), makes its parameters and "
    "trains. Its peak is read from outside after it has ended. Above idle: the peak less the memory that it "
    "held idle. Compiling: the same for the first process, which compiled; the cache of compilations served "
    "the others. Plan: the compiler's plan of the step's arguments, outputs and temporaries. Plain runs as "
    "the other commands do, with huge pages where the kernel has them. The other methods ask the C library "
    "to return freed memory at once, as `pretrain --method` does."
)
SCATTER = (
    "Less is better on both axes. A mark is a method: filled marks compute exact gradients, hollow ones do "
    "not. A stepped line is the Pareto front of an optimizer: none of its exact methods is both faster and "
    "smaller. A bar across a mark spans the processes that timed it; the mark is their middle. The optimizer "
    "is named where it is not SGD."
)
HEAD = (
    "method",
    "above idle, GB",
    "peak, GB",
    "idle, GB",
    "compiling, GB above idle",
    "plan, GB",
    "seconds a step",
    "over plain",
    "gradient error",
)
SIZES = ("above_idle_bytes", "peak_bytes", "idle_bytes", "compiling_above_idle_bytes", "plan_bytes")


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    rows = result["rows"]
    plain = next((row["step_seconds"] for row in rows if row["method"] == memory_methods.PLAIN), None)
    first = rows[0]
    parts = [
        f"# Memory of training: {first['model']}, batch {first['batch']} x {first['seconds']:g} s, "
        f"{first['precision']}, {first['optimizer']}",
        ON_DEVICE if any(row["memory"] == "device" for row in rows) else ON_HOST,
        table(HEAD, [_cells(row, plain) for row in rows]),
        "![memory against time](memory.png)",
    ]
    check = next((row for row in rows if row["gradient_error"] is not None), None)
    if check is not None:
        parts.append(
            "Gradient error: distance from the plain step's gradients over their norm, for "
            f"{check['gradient_batch']} utterances of unequal lengths, the longest of "
            f"{check['gradient_seconds']:g} s."
        )
    return "\n\n".join([*parts, footer(result["provenance"])]) + "\n"


def _cells(row: dict[str, Any], plain: float | None) -> tuple[str, ...]:
    """Format a row; `plain` is the plain step's seconds, None where it was not measured."""
    seconds, error = row["step_seconds"], row["gradient_error"]
    return (
        row["method"],
        *(gigabytes(row[name]) for name in SIZES),
        "not run" if seconds is None else f"{seconds:.2f}",
        "-" if seconds is None or plain is None else f"{seconds / plain:.2f}",
        "-" if error is None else f"{error:.1e}",
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw memory against time, a point for each method."""
    with picture(path, figsize=(PAGE_INCHES, 5.5)) as axis:
        scatter(axis, [row for row in result["rows"] if row["step_seconds"] is not None])
        legend_above([axis])
        message(axis, f"{front_sentence(result['rows'])}\n{SCATTER}")


def scatter(axis: Any, rows: list[dict[str, Any]], title: str | None = None) -> None:
    """Draw methods by memory and time, and the Pareto front of the exact ones of each optimizer.

    The marks of inexact methods are hollow.
    """
    optimizers = list(dict.fromkeys(row["optimizer"] for row in rows))
    points = [(row["step_seconds"], row["above_idle_bytes"] / GIGA) for row in rows]
    colours = [f"C{optimizers.index(row['optimizer'])}" for row in rows]
    for row, (seconds, size), colour in zip(rows, points, colours, strict=True):
        exact = memory_methods.is_exact(row["method"])
        axis.scatter(
            seconds, size, s=45, zorder=3, edgecolors=colour, facecolors=colour if exact else "white"
        )
        each = [float(value) for value in row.get("all_step_seconds") or [seconds]]
        axis.hlines(size, min(each), max(each), color=colour, linewidth=1)
    for optimizer in optimizers:
        front = _front(rows, optimizer)
        axis.plot(
            [row["step_seconds"] for row in front],
            [row["above_idle_bytes"] / GIGA for row in front],
            color=f"C{optimizers.index(optimizer)}",
            drawstyle="steps-post",
            linewidth=1.2,
            alpha=0.6,
            label=f"{optimizer}, front",
        )
    axis.set(xlabel="seconds a step", ylabel="memory above idle, GB")
    if title is not None:
        axis.set_title(title)
    axis.set_ylim(0, None)
    axis.set_xlim(0, None)
    axis.grid(alpha=0.3)
    names = [_short(row["method"]) + f", {row['optimizer']}" * (row["optimizer"] != "sgd") for row in rows]
    label_points(axis, points, names, colours)


def front_sentence(rows: list[dict[str, Any]]) -> str:
    """Name the exact methods with SGD on the Pareto front of their model; empty where none was timed."""
    sentences = []
    for model in dict.fromkeys(row["model"] for row in rows):
        front = _front([row for row in rows if row["model"] == model], "sgd")
        if front:
            words = " and ".join(
                f"{_short(row['method'])} ({gigabytes(row['above_idle_bytes'])} GB, "
                f"{row['step_seconds']:.1f} s)"
                for row in front
            )
            sentences.append(f"With SGD on {model}, no exact method beats {words}.")
    return " ".join(sentences)


def _front(rows: list[dict[str, Any]], optimizer: str) -> list[dict[str, Any]]:
    """Find the timed rows of exact methods on an optimizer's Pareto front of seconds and memory."""
    compared = [
        row
        for row in rows
        if row["step_seconds"] and row["optimizer"] == optimizer and memory_methods.is_exact(row["method"])
    ]
    return [
        compared[index]
        for index in pareto_front([(row["step_seconds"], row["above_idle_bytes"]) for row in compared])
    ]


def _short(method: str) -> str:
    """Shorten the name of a method with many parts to the first two and the number of the others."""
    parts = method.split(",")
    return method if len(parts) < 3 else f"{parts[0]}, {parts[1]} + {len(parts) - 2} more"
