"""`w2v-jax reproduce fig4`: memory in fp32 against mixed precision, over the length, base and large."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.costs import length_sweep
from experiments.options import arguments
from experiments.process import xla_flags
from experiments.process.files import replace_file, write_json
from experiments.process.provenance import record_provenance
from experiments.reproduce.fig3 import check_lengths

CURVES = {
    "autograd_cuda_bytes": "autograd, by the rules of a GPU",
    "autograd_bytes": "autograd, by the rules of a CPU",
    "residual_bytes": "residuals (ours, bf16 products)",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure4Arguments:
    """Compute Figure 4: nothing is run, programs are traced at every length and precision.

    example: w2v-jax reproduce fig4 --out reports/fig4
    """

    out: Path
    """Folder for fig4.json, fig4.md and fig4.png."""
    seconds: tuple[float, ...] = length_sweep.SECONDS
    """Lengths; at least four."""
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
    write_json(options.out / "fig4.json", result)
    text = markdown(result)
    replace_file(options.out / "fig4.md", text)
    draw(result, options.out / "fig4.png")
    print(text)
    print(f"written: {options.out / 'fig4.json'}, fig4.md, fig4.png")


def pairs(rows: list[dict[str, Any]], model: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(fp32, mixed) rows of a model, by length."""
    of = {(row["seconds"], row["precision"]): row for row in rows if row["model"] == model}
    return [(of[seconds, "fp32"], of[seconds, "mixed"]) for seconds in sorted({seconds for seconds, _ in of})]


def markdown(result: dict[str, Any]) -> str:
    """What readers see."""
    lines = [
        f"# Figure 4: memory in fp32 and in mixed precision, batch {result['batch']}",
        "",
        "![figure](fig4.png)",
        "",
        "| model | seconds | " + " | ".join(f"{name}: fp32, mixed, GB" for name in CURVES.values()) + " |",
        "|---|---|" + "---|" * len(CURVES),
    ]
    for model in length_sweep.MODELS:
        for full, mixed in pairs(result["rows"], model):
            cells = [
                f"{full[curve] / 1e9:.2f}, {mixed[curve] / 1e9:.2f} ({mixed[curve] / full[curve] - 1:+.0%})"
                for curve in CURVES
            ]
            lines.append(f"| {model} | {full['seconds']:g} | {' | '.join(cells)} |")
    lines += [
        "",
        "The paper found that mixed precision saves little memory. What it changes here, over these lengths:",
        "",
        *(
            f"- {model}, {name}: {_span(result['rows'], model, curve)}"
            for model in length_sweep.MODELS
            for curve, name in CURVES.items()
        ),
        "",
        "By the rules of a GPU norms, softmax and losses stay in fp32, half copies of inputs and weights are kept beside fp32 tensors, and",
        "parameters stay fp32. Ours keeps activations in fp32 and rounds operands of products. `autograd` on CPU is held against torch in both",
        "precisions by `make parity`; the rules of a GPU are from its documentation and were not run.",
    ]
    provenance = result["provenance"]
    lines += ["", f"`{provenance['command']}`, commit {provenance['commit']}"]
    return "\n".join(lines) + "\n"


def _span(rows: list[dict[str, Any]], model: str, curve: str) -> str:
    """Smallest and largest change by mixed precision."""
    changes = [mixed[curve] / full[curve] - 1 for full, mixed in pairs(rows, model)]
    return f"{min(changes):+.0%} to {max(changes):+.0%}"


def draw(result: dict[str, Any], path: Path) -> None:
    """One panel a model, same axes; a colour an accounting, dashed in mixed precision."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained", sharex=True, sharey=True)
    for axis, model in zip(axes, length_sweep.MODELS, strict=True):
        found = pairs(result["rows"], model)
        seconds = [full["seconds"] for full, _ in found]
        for (curve, name), colour in zip(
            CURVES.items(), ("tab:blue", "tab:green", "tab:orange"), strict=True
        ):
            for index, (precision, style) in enumerate((("fp32", "-"), ("mixed", "--"))):
                values = [pair[index][curve] / 1e9 for pair in found]
                axis.plot(
                    seconds,
                    values,
                    style,
                    color=colour,
                    marker="o",
                    markersize=3,
                    label=f"{name}: {precision}",
                )
        axis.set(title=f"{model}, batch {result['batch']}", xlabel="seconds of each utterance")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    axes[0].set_ylim(0, None)
    axes[0].set_ylabel("GB, parameters and activations")
    figure.savefig(path, dpi=110)
    plt.close(figure)
