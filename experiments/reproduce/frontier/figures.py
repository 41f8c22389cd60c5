"""Draw the frontier: memory against time, and against batch and length."""

from pathlib import Path
from typing import Any

from experiments import paper
from experiments.bench.memory.report import SCATTER, front_sentence, scatter
from experiments.report.figures import PAGE_INCHES, label_ends, legend_above, message, picture
from experiments.report.units import GIGA
from experiments.reproduce.frontier import sections as frontier
from experiments.reproduce.frontier.report import growth_of

GROWTH = (
    "Solid lines are peaks of a process (one a point), less what it held idle; dotted lines are the "
    "compiler's plans. Activations are what is held beside parameters, gradients and the optimizer's state."
)


def draw(result: dict[str, Any], folder: Path) -> list[str]:
    """Draw the measured sections into a folder; give the names of the PNGs."""
    written, sections = [], result["sections"]
    if "frontier" in sections:
        with picture(folder / "frontier.png", 2, figsize=(PAGE_INCHES, 9.5)) as axes:
            for axis, model in zip(axes, ("base", "large"), strict=True):
                rows = [row for row in sections["frontier"] if row["model"] == model and row["step_seconds"]]
                scatter(axis, rows, f"{model}, batch 4 x 5.5 s, fp32")
            legend_above(axes, 5)
            message(axes[0], f"{front_sentence(sections['frontier'])}\n{SCATTER}")
        written.append("frontier.png")
    if "growth" in sections:
        with picture(folder / "growth.png", 1, 2, figsize=(PAGE_INCHES, 4.2)) as (left, right):
            _draw_batches(left, sections["growth"])
            _draw_lengths(right, sections["growth"])
            message(left, f"{_growth_sentence(sections['growth'])} {GROWTH}")
        written.append("growth.png")
    return written


def _growth_sentence(rows: list[dict[str, Any]]) -> str:
    """Say how much the batch and the length cost, by method; what was not measured is left out."""
    grown = growth_of(rows)
    words = []
    if "batch" in grown:
        words.append(f"Sixteen times the batch takes {grown['batch']:.2f} times the peak with exact.")
    words += [
        f"Twice the length (15 to 30 s) takes {grown[method]:.2f} times the activations with {method}."
        for method in ("plain", "exact")
        if method in grown
    ]
    return " ".join(words)


def _draw_batches(axis: Any, rows: list[dict[str, Any]]) -> None:
    """Draw the peak of the exact method against the batch."""
    batches = [row for row in rows if row["seconds"] == paper.TABLE_2_SECONDS and row["above_idle_bytes"]]
    peaks = [row["above_idle_bytes"] / GIGA for row in batches]
    axis.plot([row["batch"] for row in batches], peaks, "o-", label="peak")
    if batches:
        model = 2 * batches[0]["parameter_bytes"] / GIGA
        ends = [batches[0]["batch"], batches[-1]["batch"]]
        axis.plot(ends, [model] * 2, ":", color="gray", label="parameters,\ngradients")
        axis.plot(ends, [1.1 * peaks[0]] * 2, "--", color="tab:red", linewidth=1, label="first + 10 %")
        axis.set_xscale("log", base=2)
        axis.set_xticks([row["batch"] for row in batches], [str(row["batch"]) for row in batches])
    axis.set(xlabel="batch, utterances of 5.5 s", ylabel="memory above idle, GB", title="exact, base: batch")
    axis.set_ylim(0, None)
    axis.grid(alpha=0.3)
    label_ends(axis)


def _draw_lengths(axis: Any, rows: list[dict[str, Any]]) -> None:
    """Draw activations of the plain and the exact method against the length, measured and planned."""
    for method in ("plain", "exact"):
        measured, planned = (_activations(rows, method, of) for of in ("above_idle_bytes", "plan_bytes"))
        if not measured:
            continue
        (line,) = axis.plot(*zip(*measured, strict=True), "o-", label=method)
        axis.plot(*zip(*planned, strict=True), "o:", color=line.get_color(), label=f"{method}, plan")
    axis.set(xlabel="length of the utterance, s", ylabel="activations, GB", title="base, batch 1: length")
    axis.set_yscale("log")
    axis.grid(alpha=0.3)
    label_ends(axis)


def _activations(rows: list[dict[str, Any]], method: str, of: str) -> list[tuple[float, float]]:
    """Give (seconds, GB of activations) of a method at batch 1; what is unknown is left out."""
    found = [
        (row["seconds"], frontier.activations_bytes(row, of))
        for row in rows
        if row["method"] == method and row["batch"] == 1
    ]
    return [(seconds, size / GIGA) for seconds, size in found if size is not None]
