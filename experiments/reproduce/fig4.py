"""`w2v-jax reproduce fig4`: price memory in fp32 and mixed precision over the length, base and large."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.costs import length_sweep
from experiments.options import arguments
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance
from experiments.report.figures import PAGE_INCHES, label_ends, message, picture
from experiments.report.tables import table
from experiments.report.units import GIGA, gigabytes
from experiments.report.writer import write_report
from experiments.reproduce.comparison import Comparison, Item
from experiments.reproduce.fig3 import check_lengths

LITTLE_CHANGE = 0.25  # largest change by mixed precision that counts as small
CURVES = {
    "autograd_cuda_bytes": "autograd, by the rules of a GPU",
    "autograd_bytes": "autograd, by the rules of a CPU",
    "residual_bytes": "residuals (ours, bf16 products)",
}
SHORT = {
    "autograd_cuda_bytes": "autograd, GPU rules",
    "autograd_bytes": "autograd, CPU rules",
    "residual_bytes": "residuals",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure4Arguments:
    """Compute Figure 4: nothing is run, programs are traced at every length and precision.

    example: w2v-jax reproduce fig4 --out reports/fig4
    """

    out: Path
    """Folder for fig4.json, fig4.md and fig4.png."""
    seconds: tuple[float, ...] = length_sweep.SECONDS
    """Lengths of the utterances, in seconds; give at least four."""
    batch: int = 4
    """Utterances in a batch; the paper prints none for this figure."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(Figure4Arguments, argv, "w2v-jax reproduce fig4")
    check_lengths(options.seconds, options.batch)
    options.out.mkdir(parents=True, exist_ok=True)
    xla_flags.configure_xla(1)
    from experiments.process.progress import stage

    rows = []
    for model in length_sweep.MODELS:
        for seconds in sorted(set(options.seconds)):
            stage(f"{model}, {seconds:g} s")
            rows += [length_sweep.memory_row(model, seconds, options.batch, p) for p in ("fp32", "mixed")]
    result = {"batch": options.batch, "rows": rows, "provenance": record_provenance("reproduce fig4")}
    print(write_report(options.out, "fig4", result, markdown, draw))
    print(f"written: {options.out / 'fig4.json'}, fig4.md, fig4.png")


def pairs(rows: list[dict[str, Any]], model: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pair the fp32 and the mixed row of a model at every length, shortest first."""
    of = {(row["seconds"], row["precision"]): row for row in rows if row["model"] == model}
    return [(of[seconds, "fp32"], of[seconds, "mixed"]) for seconds in sorted({seconds for seconds, _ in of})]


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    rows = [
        (
            model,
            f"{full['seconds']:g}",
            *(
                f"{gigabytes(full[curve])}, {gigabytes(mixed[curve])} ({mixed[curve] / full[curve] - 1:+.0%})"
                for curve in CURVES
            ),
        )
        for model in length_sweep.MODELS
        for full, mixed in pairs(result["rows"], model)
    ]
    provenance = result["provenance"]
    sections = [
        f"# Figure 4: memory in fp32 and in mixed precision, batch {result['batch']}",
        "![figure](fig4.png)",
        table(("model", "seconds", *(f"{name}: fp32, mixed, GB" for name in CURVES.values())), rows),
        (
            "The paper found that mixed precision saves little memory. Over these lengths it changes memory "
            "here by:"
        ),
        "\n".join(
            f"- {model}, {name}: {_span(changes(result['rows'], model, curve))}"
            for model in length_sweep.MODELS
            for curve, name in CURVES.items()
        ),
        "By the rules of a GPU norms, softmax and losses stay in fp32, half copies of inputs and weights "
        "are kept beside fp32 tensors, and parameters stay fp32. Our mixed precision keeps activations "
        "in fp32 and rounds operands of products. `make parity` compares `autograd` on CPU with torch in "
        "both precisions; the rules of a GPU are from its documentation and were not run.",
        f"`{provenance['command']}`, commit {provenance['commit']}",
    ]
    return "\n\n".join(sections) + "\n"


def changes(rows: list[dict[str, Any]], model: str, curve: str) -> list[float]:
    """Compute the relative change by mixed precision at every length."""
    return [mixed[curve] / full[curve] - 1 for full, mixed in pairs(rows, model)]


def _span(found: list[float]) -> str:
    """Format the smallest and the largest change."""
    return f"{min(found):+.0%} to {max(found):+.0%}"


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw a panel for each model on the same axes; a colour for an accounting, dashed in mixed precision."""
    with picture(path, 2, figsize=(PAGE_INCHES, 8), sharex=True) as axes:
        for axis, model in zip(axes, length_sweep.MODELS, strict=True):
            found = pairs(result["rows"], model)
            for curve, colour in zip(CURVES, ("tab:blue", "tab:green", "tab:orange"), strict=True):
                _curve(axis, found, curve, colour)
            axis.set(title=f"{model}, batch {result['batch']}", ylabel="parameters and activations, GB")
            axis.set_ylim(0, None)
            axis.grid(alpha=0.3)
            label_ends(axis)
        axes[1].set_xlabel("length of each utterance, s")
        spans = "; ".join(
            f"{model}, {SHORT[curve]}: {_span(changes(result['rows'], model, curve))}"
            for model in length_sweep.MODELS
            for curve in CURVES
        )
        message(
            axes[0],
            f"Change of memory by mixed precision (dashed) from fp32 (solid), over all lengths: {spans}. A "
            "point is counted, not measured.",
        )


def _curve(axis: Any, found: list[tuple[dict[str, Any], dict[str, Any]]], curve: str, colour: str) -> None:
    """Draw an accounting in fp32 and, dashed, in mixed precision."""
    for index, (precision, style) in enumerate((("fp32", "-"), ("mixed", "--"))):
        axis.plot(
            [full["seconds"] for full, _ in found],
            [pair[index][curve] / GIGA for pair in found],
            style,
            color=colour,
            marker="o",
            markersize=3,
            label=f"{SHORT[curve]}, {precision}",
        )


def compare(result: dict[str, Any]) -> list[Comparison]:
    """Set the changes by mixed precision beside the paper's word of little change."""
    found = []
    for model in length_sweep.MODELS:
        for curve, title in (
            ("autograd_cuda_bytes", "by the rules of a GPU"),
            ("residual_bytes", "here, bf16 products"),
        ):
            changed = changes(result["rows"], model, curve)
            found.append(
                Comparison(
                    f"{model}: memory of mixed precision over fp32, 1 to 30 s, {title}",
                    "little change",
                    _span(changed),
                    verdict="within a quarter" if max(map(abs, changed)) <= LITTLE_CHANGE else "differs",
                )
            )
    return found


def meaning(result: dict[str, Any]) -> str:
    """Say what Figure 4 means."""
    changed = [
        change
        for model in length_sweep.MODELS
        for change in changes(result["rows"], model, "autograd_cuda_bytes")
    ]
    return (
        "Half precision does not halve the memory: norms, softmax and losses stay in fp32, and half "
        "copies of inputs and weights are kept beside fp32 tensors. By a GPU's rules it changes what is "
        f"kept by {_span(changed)}, and in {sum(change > 0 for change in changed)} of {len(changed)} "
        "settings more is kept than in fp32. The paper's words are no number, so no difference is called "
        "agreement here."
    )


ITEM = Item("fig4", "Figure 4: fp32 against mixed precision", ("reproduce", "fig4"), compare, meaning)
