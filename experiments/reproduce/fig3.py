"""`w2v-jax reproduce fig3`: price memory and FLOPs against the length of utterances, base and large."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.costs import length_sweep
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance
from experiments.report.figures import PAGE_INCHES, label_ends, message, picture
from experiments.report.tables import table
from experiments.report.units import GIGA, gigabytes, percent
from experiments.report.writer import write_report
from experiments.reproduce.comparison import Comparison, Item

MEMORY_CLASSES = (((4, 8), 0.15), ((8, 12), 0.3))  # of the paper, with the shade of each
ABOUT_LINEAR = 0.05  # largest quadratic share at which growth counts as proportional
CURVES = {
    "autograd_bytes": "autograd",
    "residual_bytes": "residuals",
    "flops_paper": "forward FLOPs, paper",
    "flops_full": "forward FLOPs, full",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure3Arguments:
    """Compute Figure 3: nothing is run, programs are traced at every length (a minute or two).

    example: w2v-jax reproduce fig3 --out reports/fig3
    """

    out: Path
    """Folder for fig3.json, fig3.md and fig3.png."""
    seconds: tuple[float, ...] = length_sweep.SECONDS
    """Lengths of the utterances, in seconds; give at least four."""
    batch: int = 4
    """Utterances in a batch; the paper prints none for this figure."""


def check_lengths(seconds: tuple[float, ...], batch: int) -> None:
    """Check that a fit can be made.

    Raises:
        UsageError: there are too few lengths, or one of them or the batch is out of range.
    """
    if len(set(seconds)) < 4 or not all(0.1 <= value <= length_sweep.LONGEST_SECONDS for value in seconds):
        raise UsageError(
            f"--seconds must be four or more lengths between 0.1 and {length_sweep.LONGEST_SECONDS:g}"
        )
    if batch < 1:
        raise UsageError(f"--batch must be at least 1, got {batch}")


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(Figure3Arguments, argv, "w2v-jax reproduce fig3")
    check_lengths(options.seconds, options.batch)
    options.out.mkdir(parents=True, exist_ok=True)
    xla_flags.configure_xla(1)
    from experiments.process.progress import stage

    rows = []
    for model in length_sweep.MODELS:
        for seconds in sorted(set(options.seconds)):
            stage(f"{model}, {seconds:g} s")
            memory = length_sweep.memory_row(model, seconds, options.batch, "fp32")
            rows.append(memory | length_sweep.flops_row(model, seconds, options.batch))
    result = {
        "batch": options.batch,
        "rows": rows,
        "fits": fits(rows),
        "provenance": record_provenance("reproduce fig3"),
    }
    print(write_report(options.out, "fig3", result, markdown, draw))
    print(f"written: {options.out / 'fig3.json'}, fig3.md, fig3.png")


def fits(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Fit every curve over the length: model -> curve -> fit."""
    return {
        model: {
            curve: length_sweep.fit(
                [row["seconds"] for row in rows if row["model"] == model],
                [row[curve] for row in rows if row["model"] == model],
            )
            for curve in CURVES
        }
        for model in length_sweep.MODELS
    }


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    longest = max(row["seconds"] for row in result["rows"])
    fitted = [
        (model, name, *_terms(curves[curve], "GFLOPs" if curve.startswith("flops") else "GB"))
        for model, curves in result["fits"].items()
        for curve, name in CURVES.items()
    ]
    priced = [
        (
            row["model"],
            f"{row['seconds']:g}",
            gigabytes(row["autograd_bytes"]),
            gigabytes(row["residual_bytes"]),
            f"{row['flops_paper'] / GIGA:.1f}",
            f"{row['flops_full'] / GIGA:.1f}",
        )
        for row in result["rows"]
    ]
    share = f"quadratic share at {longest:g} s"
    provenance = result["provenance"]
    sections = [
        f"# Figure 3: memory and FLOPs against length, batch {result['batch']}, fp32",
        "![figure](fig3.png)",
        table(("model", "curve", "slope a second", "quadratic a second^2", share), fitted),
        f"{_growth(result['fits'])} Memory holds the parameters.",
        table(("model", "seconds", "autograd, GB", "residuals, GB", "GFLOPs, paper", "GFLOPs, full"), priced),
        f"`{provenance['command']}`, commit {provenance['commit']}",
    ]
    return "\n\n".join(sections) + "\n"


def _terms(fit: dict[str, float], unit: str) -> tuple[str, str, str]:
    """Format a fit's slope, its quadratic term (both in 1e9 `unit`) and the share of the quadratic term."""
    return (
        f"{fit['slope'] / GIGA:.3f} {unit}",
        f"{fit['quadratic'] / GIGA:.5f} {unit}",
        percent(fit["quadratic_share"]),
    )


def _growth(fits: dict[str, dict[str, dict[str, float]]]) -> str:
    """Say how far from proportional each curve is."""
    worst = {curve: max(abs(row[curve]["quadratic_share"]) for row in fits.values()) for curve in CURVES}
    shares = ", ".join(f"{CURVES[curve]} {percent(share)}" for curve, share in worst.items())
    return (
        "The paper reads memory and FLOPs as growing in proportion to the length. The quadratic term is "
        f"at most: {shares}."
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw memory left, FLOPs right, both models."""
    with picture(path, 2, figsize=(PAGE_INCHES, 8)) as (memory, compute):
        for model, colour in zip(length_sweep.MODELS, ("tab:blue", "tab:orange"), strict=True):
            rows = [row for row in result["rows"] if row["model"] == model]
            _curves(memory, rows, ("autograd_bytes", "residual_bytes"), colour)
            _curves(compute, rows, ("flops_paper", "flops_full"), colour)
        for (least, most), alpha in MEMORY_CLASSES:
            # Memory is sold in binary units; the axis has decimal ones.
            memory.axhspan(least * 2**30 / GIGA, most * 2**30 / GIGA, color="gray", alpha=alpha)
        memory.set(ylabel="parameters and activations, GB", title=f"Memory, batch {result['batch']}")
        compute.set(ylabel="forward operations, GFLOP", title=f"Compute, batch {result['batch']}")
        for axis in (memory, compute):
            axis.axvspan(1, 3, color="tab:green", alpha=0.12)
            axis.set(xlabel="length of each utterance, s", ylim=(0, None))
            axis.grid(alpha=0.3)
            label_ends(axis)
        bands = " and ".join(f"{least} to {most} GB" for (least, most), _ in MEMORY_CLASSES)
        message(
            memory,
            f"{_growth(result['fits'])} A point is counted, not measured. Grey bands: boards and phones of "
            f"{bands}. Green band: lengths of keyword spotting, 1 to 3 s.",
        )


def _curves(axis: Any, rows: list[dict[str, Any]], curves: tuple[str, str], colour: str) -> None:
    """Draw two curves of a model, the second dashed."""
    for curve, style in zip(curves, ("-", "--"), strict=True):
        axis.plot(
            [row["seconds"] for row in rows],
            [row[curve] / GIGA for row in rows],
            style,
            color=colour,
            marker="o",
            markersize=3,
            label=f"{rows[0]['model']}, {CURVES[curve].removeprefix('forward ')}",
        )


def compare(result: dict[str, Any]) -> list[Comparison]:
    """Set the quadratic shares beside the paper's word of proportional growth."""
    found = []
    for model, fits in result["fits"].items():
        for name, title in (
            ("autograd_bytes", "memory"),
            ("flops_paper", "FLOPs, by the paper's counter"),
            ("flops_full", "FLOPs, all of them"),
        ):
            share = fits[name]["quadratic_share"]
            found.append(
                Comparison(
                    f"{model}: {title}, part that grows with the square of the length, at 30 s",
                    "about none",
                    f"{abs(share):.0%}",
                    verdict="agrees" if abs(share) < ABOUT_LINEAR else "differs",
                )
            )
    return found


def meaning(result: dict[str, Any]) -> str:
    """Say what Figure 3 means."""
    base = result["fits"]["base"]
    return (
        "The paper reads memory and FLOPs as growing in proportion to the length. By its own counter "
        f"FLOPs do. With attention's products {base['flops_full']['quadratic_share']:.0%} of base's FLOPs "
        f"at 30 s grow with the square of the length, and {base['autograd_bytes']['quadratic_share']:.0%} "
        "of the memory that an eager framework keeps: long clips are dearer than the figure says."
    )


ITEM = Item("fig3", "Figure 3: memory and FLOPs against length", ("reproduce", "fig3"), compare, meaning)
