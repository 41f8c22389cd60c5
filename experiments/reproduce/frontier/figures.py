"""Draw the frontier: memory against time, and against batch and length."""

from pathlib import Path
from typing import Any

from experiments import paper
from experiments.bench.memory.report import scatter
from experiments.report.figures import picture
from experiments.report.units import GIGA
from experiments.reproduce.frontier import sections as frontier


def draw(result: dict[str, Any], folder: Path) -> list[str]:
    """Draw the measured sections into a folder; give the names of the PNGs."""
    written, sections = [], result["sections"]
    if "frontier" in sections:
        with picture(folder / "frontier.png", 1, 2, figsize=(15, 8)) as axes:
            for axis, model in zip(axes, ("base", "large"), strict=True):
                rows = [row for row in sections["frontier"] if row["model"] == model and row["step_seconds"]]
                scatter(axis, rows, f"{model}, batch 4 x 5.5 s, fp32")
        written.append("frontier.png")
    if "growth" in sections:
        with picture(folder / "growth.png", 1, 2, figsize=(11, 4.5)) as (left, right):
            _draw_batches(left, sections["growth"])
            _draw_lengths(right, sections["growth"])
            for axis in (left, right):
                axis.set_ylim(0, None)
                axis.grid(alpha=0.3)
                axis.legend(fontsize=8)
        written.append("growth.png")
    return written


def _draw_batches(axis: Any, rows: list[dict[str, Any]]) -> None:
    """Draw the peak of the exact method against the batch."""
    batches = [row for row in rows if row["seconds"] == paper.TABLE_2_SECONDS and row["above_idle_bytes"]]
    peaks = [row["above_idle_bytes"] / GIGA for row in batches]
    axis.plot([row["batch"] for row in batches], peaks, "o-", label="peak")
    if batches:
        model = 2 * batches[0]["parameter_bytes"] / GIGA
        axis.axhline(model, color="gray", linestyle=":", label="parameters and gradients")
        axis.axhline(1.1 * peaks[0], color="red", linewidth=1, label="+ 10 %")
    axis.set(xlabel="batch", ylabel="GB above idle", title="exact, base, 5.5 s: memory against batch")


def _draw_lengths(axis: Any, rows: list[dict[str, Any]]) -> None:
    """Draw activations of the plain and the exact method against the length, measured and planned."""
    for method in ("plain", "exact"):
        measured, planned = (_activations(rows, method, of) for of in ("above_idle_bytes", "plan_bytes"))
        if not measured:
            continue
        (line,) = axis.plot(*zip(*measured, strict=True), "o-", label=method)
        axis.plot(*zip(*planned, strict=True), "o:", color=line.get_color(), label=f"{method}, by plan")
        reference = dict(planned).get(15.0)
        if method == "exact" and reference is not None:
            words = "1.8 times exact's plan at 15 s"
            axis.hlines(1.8 * reference, 15, 30, "red", linewidth=1, label=words)
    axis.set(xlabel="seconds", ylabel="GB of activations", title="base, batch 1: activations against length")


def _activations(rows: list[dict[str, Any]], method: str, of: str) -> list[tuple[float, float]]:
    """Give (seconds, GB of activations) of a method at batch 1; what is unknown is left out."""
    found = [
        (row["seconds"], frontier.activations_bytes(row, of))
        for row in rows
        if row["method"] == method and row["batch"] == 1
    ]
    return [(seconds, size / GIGA) for seconds, size in found if size is not None]
