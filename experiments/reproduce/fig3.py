"""`w2v-jax reproduce fig3`: memory and FLOPs against the length of the utterances, base and large."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.costs import length_sweep
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.files import replace_file, write_json
from experiments.process.provenance import record_provenance

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
    """Lengths; at least four for the fit."""
    batch: int = 4
    """Utterances in a batch; the paper prints none for this figure."""


def check_lengths(seconds: tuple[float, ...], batch: int) -> None:
    """Refuse lengths that no fit can be made of.

    Raises:
        UsageError: in one line.
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
    write_json(options.out / "fig3.json", result)
    text = markdown(result)
    replace_file(options.out / "fig3.md", text)
    draw(result, options.out / "fig3.png")
    print(text)
    print(f"written: {options.out / 'fig3.json'}, fig3.md, fig3.png")


def fits(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """model -> curve -> fit."""
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
    """What readers see."""
    longest = max(row["seconds"] for row in result["rows"])
    lines = [
        f"# Figure 3: memory and FLOPs against length, batch {result['batch']}, fp32",
        "",
        "![figure](fig3.png)",
        "",
        f"| model | curve | slope a second | quadratic a second^2 | quadratic share at {longest:g} s |",
        "|---|---|---|---|---|",
    ]
    for model, curves in result["fits"].items():
        for curve, name in CURVES.items():
            row, unit = curves[curve], "GFLOPs" if curve.startswith("flops") else "GB"
            lines.append(
                f"| {model} | {name} | {row['slope'] / 1e9:.3f} {unit} | {row['quadratic'] / 1e9:.5f} {unit} | {row['quadratic_share']:.0%} |"
            )
    lines += [
        "",
        _growth(result["fits"]),
        "Memory holds the parameters.",
        "",
        "| model | seconds | autograd, GB | residuals, GB | GFLOPs, paper | GFLOPs, full |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        values = [row[curve] / 1e9 for curve in CURVES]
        lines.append(
            f"| {row['model']} | {row['seconds']:g} | {values[0]:.2f} | {values[1]:.2f} | {values[2]:.1f} | {values[3]:.1f} |"
        )
    provenance = result["provenance"]
    lines += ["", f"`{provenance['command']}`, commit {provenance['commit']}"]
    return "\n".join(lines) + "\n"


def _growth(fits: dict[str, dict[str, dict[str, float]]]) -> str:
    """How far from proportional each curve is, in a sentence."""
    worst = {curve: max(abs(row[curve]["quadratic_share"]) for row in fits.values()) for curve in CURVES}
    shares = ", ".join(f"{CURVES[curve]} {share:.0%}" for curve, share in worst.items())
    return f"The paper reads memory and FLOPs as growing in proportion to the length. The quadratic term is at most: {shares}."


def draw(result: dict[str, Any], path: Path) -> None:
    """Memory left, FLOPs right, both models."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for model, colour in zip(length_sweep.MODELS, ("tab:blue", "tab:orange"), strict=True):
        rows = [row for row in result["rows"] if row["model"] == model]
        seconds = [row["seconds"] for row in rows]
        for axis, curves in zip(
            axes, (("autograd_bytes", "residual_bytes"), ("flops_paper", "flops_full")), strict=True
        ):
            for curve, style in zip(curves, ("-", "--"), strict=True):
                axis.plot(
                    seconds,
                    [row[curve] / 1e9 for row in rows],
                    style,
                    color=colour,
                    marker="o",
                    markersize=3,
                    label=f"{model}, {CURVES[curve]}",
                )
    axes[0].axhspan(4, 8, color="gray", alpha=0.15, label="boards and phones of 4 to 8 GB")
    axes[0].axhspan(8, 12, color="gray", alpha=0.3, label="of 8 to 12 GB")
    axes[0].set(ylabel="GB, parameters and activations", title=f"memory, batch {result['batch']}")
    axes[1].set(ylabel="GFLOPs, forward", title=f"compute, batch {result['batch']}")
    for axis in axes:
        axis.axvspan(1, 3, color="tab:green", alpha=0.12, label="keyword spotting: 1 to 3 s")
        axis.set(xlabel="seconds of each utterance", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
