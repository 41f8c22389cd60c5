"""Write fig2.md and draw fig2.png."""

from pathlib import Path
from typing import Any

from experiments.report.figures import PAGE_INCHES, SMALL_POINTS, message, picture
from experiments.report.tables import table
from experiments.report.units import GIGA, gigabytes, percent

LEAVES_OUT = {
    "autograd": "gradients, optimizer state, workspaces, what the allocator keeps",
    "autograd, activations": "parameters, gradients, optimizer state, workspaces, what the allocator keeps",
    "autograd, CUDA": "gradients, optimizer state, workspaces; dropout noise takes a byte and not four",
    "autograd, linear part": "attention's tensors of frames x frames, gradients, optimizer state, workspaces",
    "residuals": "gradients, optimizer state, what XLA fuses or computes again",
    "xla": "code and the runtime's own memory (gradients and AdamW's state are in it)",
}


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    from profiling.eager_memory import RULES

    layers, provenance = result["settings"][0]["layers"], result["provenance"]
    sections = [
        "# Figure 2: memory and compute by layer, base, fp32",
        "![figure](fig2.png)",
        _accountings(result),
        f"{_closest(result['closest'])} The two printed figures agree with growth in proportion to the "
        "frames (2.54 less parameters, x 4.37, plus parameters: 9.82), so tensors of frames x frames "
        "seem not to be in them.",
        _standing_out(layers),
        _layers(layers),
        (
            "`autograd` keeps, operation by operation (`make parity` compares it with torch's own saved "
            "tensors, layer by layer):"
        ),
        "\n".join(f"- {operation}: {kept}" for operation, kept in RULES.items()),
        f"XLA flags of `xla`: `{provenance['xla_flags']}`.",
        f"`{provenance['command']}`, commit {provenance['commit']}",
    ]
    return "\n\n".join(sections) + "\n"


def _accountings(result: dict[str, Any]) -> str:
    """Show every accounting at both settings beside the printed bytes."""
    first, second = result["settings"]
    rows: list[tuple[str, ...]] = [
        (
            "**the paper, printed**",
            gigabytes(first["printed_bytes"]),
            gigabytes(second["printed_bytes"]),
            "its tool is not named",
        )
    ]
    for name, errors in result["closest"]["errors"].items():
        sizes = (
            f"{gigabytes(setting['accountings'][name])} ({error:+.0%})"
            for setting, error in zip(result["settings"], errors, strict=True)
        )
        rows.append((name, *sizes, LEAVES_OUT[name]))
    return table(("accounting", "batch 4 x 5.5 s, GB", "batch 8 x 12 s, GB", "what it leaves out"), rows)


def _closest(closest: dict[str, Any]) -> str:
    """Name the accounting that comes closest to both printed figures, and those close to the first."""
    name, errors = closest["name"], closest["errors"]
    worst = max(map(abs, errors[name]))
    near = [other for other, (one, _) in errors.items() if abs(one) < 0.02]
    alone = f" At batch 4 alone `{', '.join(near)}` comes out within 2 %." if near else ""
    return (
        f"Over both figures together `{name}` comes closest (within {percent(worst)}); it leaves out "
        f"{LEAVES_OUT[name]}.{alone}"
    )


def _layers(layers: list[dict[str, Any]]) -> str:
    head = (
        "layer",
        "autograd, GB",
        "residuals, GB",
        "GFLOPs, paper",
        "GFLOPs, forward",
        "GFLOPs, backward",
    )
    rows = [
        (
            row["layer"],
            gigabytes(row["autograd_bytes"], 3),
            gigabytes(row["residual_bytes"], 3),
            *(f"{row[f'flops_{kind}'] / GIGA:.2f}" for kind in ("paper", "forward", "backward")),
        )
        for row in layers
    ]
    return table(head, rows)


def _standing_out(layers: list[dict[str, Any]]) -> str:
    """Name the layers that keep most, in a sentence."""
    ranked = sorted(layers, key=lambda row: -row["autograd_bytes"])
    network = [row for row in ranked if row["module"] in ("cnn_encoder", "transformer")]
    words = ", ".join(f"{row['layer']} {gigabytes(row['autograd_bytes'], 3)} GB" for row in network[:3])
    more = [
        row for row in ranked if row not in network and row["autograd_bytes"] > network[0]["autograd_bytes"]
    ]
    beyond = "".join(
        f" {row['layer']} keep more, {gigabytes(row['autograd_bytes'], 3)} GB: gathered negatives."
        for row in more
    )
    return (
        f"The layers of the network that keep most: {words}. In the paper's figure the CNN's first layers "
        f"stand out.{beyond}"
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the accumulated memory with its peak, the memory and the compute of each layer."""
    from experiments.costs.profile.report import MODULES

    row = result["settings"][0]
    layers = row["layers"]
    colours = [MODULES[layer["module"]] for layer in layers]
    with picture(path, 3, figsize=(PAGE_INCHES, 9), sharex=True) as (total, memory, compute):
        _draw_total(total, row)
        kept = [layer["autograd_bytes"] / GIGA for layer in layers]
        memory.bar(range(len(layers)), kept, color=colours)
        memory.set(ylabel="kept by the layer, GB", title="Memory by layer (autograd)")
        _draw_compute(compute, layers, colours)
        names = [layer["layer"] for layer in layers]
        compute.set_xticks(range(len(layers)), names, rotation=90, fontsize=SMALL_POINTS)
        for axis in (total, memory, compute):
            axis.grid(alpha=0.3, axis="y")
        message(
            total,
            f"{_closest(result['closest'])} All bars are counted, none is measured: base, fp32, batch "
            f"{row['batch']} x {row['seconds']:g} s. Colours: CNN blue, Transformer orange, quantization "
            "green, losses red, optimizer grey.",
        )


def _draw_total(axis: Any, row: dict[str, Any]) -> None:
    """Draw what all layers so far keep, with its peak and the printed bytes."""
    layers, printed = row["layers"], row["printed_bytes"] / GIGA
    reached = [layer["accumulated_bytes"] / GIGA for layer in layers]
    peak = reached.index(max(reached))
    axis.plot(range(len(layers)), reached, color="black")
    axis.plot(peak, reached[peak], "x", color="red", markersize=11, markeredgewidth=2.5)
    axis.axhline(printed, color="red", linestyle=":")
    above = {"textcoords": "offset points", "fontsize": SMALL_POINTS, "color": "red"}
    axis.annotate(f"peak {max(reached):.2f} GB", (peak, max(reached)), (-8, 4), ha="right", **above)
    axis.annotate(f"printed in the paper: {printed:.2f} GB", (0, printed), (0, 3), **above)
    axis.set(
        ylim=(0, max(*reached, printed) * 1.2),
        ylabel="kept so far, GB",
        title="Parameters and what all layers so far keep",
    )


def _draw_compute(axis: Any, layers: list[dict[str, Any]], colours: list[str]) -> None:
    """Draw forward and backward operations of each layer."""
    width = 0.4
    for side, name, alpha in ((-1, "flops_forward", 1.0), (1, "flops_backward", 0.45)):
        axis.bar(
            [place + side * width / 2 for place in range(len(layers))],
            [layer[name] / GIGA for layer in layers],
            width,
            color=colours,
            alpha=alpha,
        )
    axis.set(ylabel="operations, GFLOP", title="Compute by layer: forward left, backward right and paler")
