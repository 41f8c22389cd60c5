"""The report of `bench memory`."""

from pathlib import Path
from typing import Any

from experiments.report.figures import picture
from experiments.report.footer import footer
from experiments.report.tables import table
from experiments.report.units import gigabytes
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
    with picture(path, figsize=(8, 6)) as axis:
        scatter(axis, [row for row in result["rows"] if row["step_seconds"] is not None])


def scatter(axis: Any, rows: list[dict[str, Any]], title: str | None = None) -> None:
    """Draw methods by memory and time; hollow marks are inexact methods."""
    for place, row in enumerate(rows):
        exact = memory_methods.is_exact(row["method"])
        axis.scatter(
            row["step_seconds"],
            row["above_idle_bytes"] / 1e9,
            facecolors=f"C{place % 10}" if exact else "none",
            edgecolors=f"C{place % 10}",
            marker="os^D"[place // 10 % 4],
            s=60,
            zorder=3,
            label=f"{row['method']}, {row['optimizer']}" + ("" if exact else " (inexact)"),
        )
    axis.set(xlabel="seconds a step", ylabel="GB above idle")
    if title is not None:
        axis.set_title(title)
    axis.set_ylim(0, None)
    axis.set_xlim(0, None)
    axis.grid(alpha=0.3)
    # The legend stands below the axes, because no corner is free of points for so many names.
    axis.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.12))
