"""The profile for readers: tables in Markdown, layers, timeline and roofline as pictures."""

from pathlib import Path
from typing import Any

import matplotlib

from w2v_jax import memory_methods

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MODULES = {
    "cnn_encoder": "tab:blue",
    "transformer": "tab:orange",
    "quantization": "tab:green",
    "losses and draws": "tab:red",
    "optimizer": "tab:gray",
}
AT_PEAK_ROWS = 8
OPERATIONS = {
    "while": "results of a loop, stacked over its turns",
}


def layer_flops(row: dict[str, Any], direction: str) -> int:
    """Products, elementwise and transcendental operations of a layer."""
    return sum(row[direction][kind] for kind in ("products", "elementwise", "transcendental"))


def by_module(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Layers summed over modules, the whole last."""
    rows = []
    for module in (*MODULES, "total"):
        members = [row for row in layers if module in (row["module"], "total")]
        rows.append(
            {
                "module": module,
                "params": sum(row["params"] for row in members),
                "forward": sum(layer_flops(row, "forward") for row in members),
                "backward": sum(layer_flops(row, "backward") for row in members),
                "residual_bytes": sum(row["residual_bytes"] for row in members),
                "autograd_bytes": sum(row["autograd_bytes"] for row in members),
            }
        )
    return rows


def markdown(result: dict[str, Any]) -> str:
    """The report that is read in a minute."""
    modules = by_module(result["layers"])
    whole = modules[-1]
    flops = whole["forward"] + whole["backward"]
    lines = [
        f"# Profile: {result['description']}",
        "",
        "| module | M parameters | forward GFLOPs | backward GFLOPs | share | kept: residuals, GB | autograd, GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in modules:
        cells = (
            row["module"].replace("_", " "),
            f"{row['params'] / 1e6:.4g}",
            f"{row['forward'] / 1e9:.4g}",
            f"{row['backward'] / 1e9:.4g}",
            f"{(row['forward'] + row['backward']) / flops:.1%}",
            f"{row['residual_bytes'] / 1e9:.3g}",
            f"{row['autograd_bytes'] / 1e9:.3g}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        *_cross_check(result),
        *_unpriced(result),
        "![layers](layers.png)",
        "",
        "## Memory",
        "",
        *_memory(result),
    ]
    lines += ["", *_peak(result), "## Time, at best", "", *_roofline(result), "", *_round(result["round"])]
    provenance = result["provenance"]
    lines += [
        "",
        f"`{provenance['command']}`, commit {provenance['commit']}, {result['seconds_taken']:.0f} s",
    ]
    return "\n".join(lines) + "\n"


def _cross_check(result: dict[str, Any]) -> list[str]:
    """XLA's own count, which takes a loop's body once."""
    theirs = result["compiled"]["xla_flops"]
    said = "does not say" if theirs is None else f"says {theirs / 1e9:.4g} GFLOPs"
    return [
        f"The whole step is {result['step']['flops'] / 1e9:.4g} GFLOPs; XLA's cost analysis {said} (it counts a loop's "
        "body once, and elementwise work by its own formulas).",
        "",
    ]


def _unpriced(result: dict[str, Any]) -> list[str]:
    if not result["unpriced"]:
        return []
    names = ", ".join(f"{name} ({count} x)" for name, count in result["unpriced"].items())
    return [f"**Not priced, and in no row: {names}.**", ""]


def _memory(result: dict[str, Any]) -> list[str]:
    printed = result["printed_bytes"]
    lines = [f"| accounting | GB |{' against the printed |' if printed else ''} what it is |"]
    lines.append("|---|---|---|" + ("---|" if printed else ""))
    if printed:
        lines.append(f"| the paper | {printed / 1e9:.2f} | | its tool is not named |")
    for row in result["accountings"]:
        beside = f" {row['bytes'] / printed - 1:+.0%} |" if printed else ""
        lines.append(f"| {row['name']} | {row['bytes'] / 1e9:.2f} |{beside} {row['meaning']} |")
    standing = result["standing_bytes"]
    lines += [
        "",
        f"Whatever the batch: parameters {standing['parameters'] / 1e9:.2f} GB, gradients "
        f"{standing['gradients'] / 1e9:.2f}, optimizer state {standing['optimizer_state'] / 1e9:.2f}.",
    ]
    compiled = result["compiled"]
    if compiled["target"]:
        options = ", ".join(f"{name}={value}" for name, value in compiled["options"].items())
        lines.append(
            f"The plan is the compiler's for {compiled['target']} ({options or 'default options'}); driver and "
            "context come on top."
        )
    else:
        lines.append(f"XLA flags: `{result['provenance']['xla_flags']}`.")
        named = memory_methods.names_of(result["settings"]["method"])
        if "remat-cnn" in named and result["provenance"]["backend"] == "cpu":
            lines.append(
                "XLA:CPU undoes some rematerialisation outside loops: the CNN layers keep more here than on a GPU."
            )
    if result["measured"]:
        seconds = sorted(result["measured"]["step_seconds"])
        lines.append(
            f"Measured: {seconds[len(seconds) // 2]:.2f} s a step (median of {len(seconds)}, "
            f"{seconds[0]:.2f} to {seconds[-1]:.2f})."
        )
    return lines


def _peak(result: dict[str, Any]) -> list[str]:
    timeline = result["compiled"]["timeline"]
    if timeline is None:
        return ["This compiler does not tell when each buffer lives: no timeline.", ""]
    held = timeline["at_peak"]
    live = sum(row["bytes"] for row in held)
    lines = [
        "![timeline](timeline.png)",
        "",
        f"The peak, {timeline['peak_bytes'] / 1e9:.2f} GB, holds {timeline['standing_bytes'] / 1e9:.2f} GB of arguments "
        f"and results (parameters, optimizer state, batch) and {live / 1e9:.2f} GB of temporaries:",
        "",
        "| GB | share | buffers | made by | in |",
        "|---|---|---|---|---|",
    ]
    for row in held[:AT_PEAK_ROWS]:
        lines.append(
            f"| {row['bytes'] / 1e9:.3f} | {row['bytes'] / live:.0%} | {row['buffers']} | "
            f"{OPERATIONS.get(row['operation'], row['operation'])}, {row['direction']} | {row['layer']} |"
        )
    rest = sum(row["bytes"] for row in held[AT_PEAK_ROWS:])
    lines.append(f"| {rest / 1e9:.3f} | {rest / live:.0%} | | all else | |")
    parts = sorted(result["residual_parts"].items(), key=lambda part: -part[1])
    words = ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in parts)
    return [*lines, "", f"All transformer layers keep (residuals): {words}.", ""]


def _roofline(result: dict[str, Any]) -> list[str]:
    roof = result["roofline"]
    lines = [
        f"{roof['title']}: {roof['bytes_per_second'] / 1e9:.0f} GB/s, "
        + (
            f"{roof['peak_flops'] / 1e12:.2f} TFLOP/s in {roof['precision']}"
            if roof["peak_flops"]
            else f"rate in {roof['precision']} unknown"
        )
        + f" ({roof['source']}).",
        f"A step is {result['step']['flops'] / 1e9:.4g} GFLOPs at {roof['intensity_unfused']:.1f} (nothing fused) to "
        f"{roof['intensity_fused']:.1f} (all but products fused) operations a byte.",
    ]
    arithmetic = "unknown" if roof["compute_seconds"] is None else f"{roof['compute_seconds']:.3f} s"
    lines += [
        f"At the data sheet's rates arithmetic takes {arithmetic}, traffic an estimated {roof['fused_seconds']:.3f} "
        f"(all but products fused) to {roof['unfused_seconds']:.3f} s (nothing fused). No prediction of a step's time.",
        "",
        "![roofline](roofline.png)",
    ]
    return lines


def _round(price: dict[str, Any]) -> list[str]:
    return [
        "## A federated round",
        "",
        f"{price['clients']} clients x {price['local_steps']} steps: {price['client_flops'] / 1e12:.1f} TFLOPs on clients "
        f"({price['client_flops'] / price['clients'] / 1e12:.2f} each), {price['server_flops'] / 1e9:.1f} GFLOPs on the "
        f"server, {price['bytes_down'] / 1e9:.2f} GB down and {price['bytes_up'] / 1e9:.2f} GB up, "
        f"{price['audio_seconds'] / 3600:.2f} h of audio heard.",
    ]


def draw(result: dict[str, Any], folder: Path) -> list[str]:
    """layers.png, roofline.png and, where there is a timeline, timeline.png; their names."""
    draw_layers(result["layers"], result["description"], folder / "layers.png")
    draw_roofline(result, folder / "roofline.png")
    if not result["compiled"]["timeline"]:
        (folder / "timeline.png").unlink(missing_ok=True)  # of another run in the same folder
        return ["layers.png", "roofline.png"]
    draw_timeline(result, folder / "timeline.png")
    return ["layers.png", "roofline.png", "timeline.png"]


def draw_layers(layers: list[dict[str, Any]], title: str, path: Path) -> None:
    """Memory kept and operations, forward and backward, by layer."""
    figure, (memory, compute) = plt.subplots(
        1, 2, figsize=(12, 0.27 * len(layers) + 1.6), layout="constrained", sharey=True
    )
    at = range(len(layers))
    memory.barh(at, [row["autograd_bytes"] / 1e9 for row in layers], 0.8, color="lightgray", label="autograd")
    colours = [MODULES[row["module"]] for row in layers]
    memory.barh(at, [row["residual_bytes"] / 1e9 for row in layers], 0.4, color=colours, label="residuals")
    memory.set(xlabel="GB kept for the backward pass", title="memory")
    memory.set_yticks(at, [row["layer"] for row in layers], fontsize=8)
    memory.invert_yaxis()
    forward = [layer_flops(row, "forward") / 1e9 for row in layers]
    backward = [layer_flops(row, "backward") / 1e9 for row in layers]
    compute.barh(at, forward, 0.8, color=colours, label="forward")
    compute.barh(at, backward, 0.8, left=forward, color=colours, alpha=0.45, label="backward (paler)")
    compute.set(xlabel="GFLOPs", title="compute")
    for axis in (memory, compute):
        axis.grid(alpha=0.3, axis="x")
        axis.legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_timeline(result: dict[str, Any], path: Path) -> None:
    """Live memory over the step, with its peak marked, over the parameters and state that stand all along."""
    timeline = result["compiled"]["timeline"]
    standing = timeline["standing_bytes"] / 1e9
    moments = timeline["moments"]
    live = [standing + size / 1e9 for size in timeline["live_bytes"]]
    figure, axis = plt.subplots(figsize=(11, 4.2), layout="constrained")
    axis.fill_between(moments, 0, standing, color="lightgray", label="parameters, optimizer state, batch")
    for phase, colour in (("forward", "tab:blue"), ("backward", "tab:orange"), ("optimizer", "tab:green")):
        inside = [p == phase for p in timeline["phases"]]
        axis.fill_between(
            moments, standing, live, where=inside, color=colour, alpha=0.5, step="mid", label=phase
        )
    axis.plot(moments, live, color="black", linewidth=0.8)
    peak = timeline["peak_bytes"] / 1e9
    axis.plot(timeline["peak_moment"], peak, "x", color="red", markersize=11, markeredgewidth=2.5)
    largest = "\n".join(
        f"{row['bytes'] / 1e9:.2f} GB {row['layer']} ({OPERATIONS.get(row['operation'], row['operation'])})"
        for row in timeline["at_peak"][:4]
    )
    axis.annotate(
        f"peak {peak:.2f} GB, temporaries:\n{largest}",
        (timeline["peak_moment"], peak),
        xytext=(0.02, 0.97),
        textcoords="axes fraction",
        va="top",
        fontsize=8,
        arrowprops={"arrowstyle": "-", "color": "red", "alpha": 0.5},
    )
    if result["printed_bytes"]:
        axis.axhline(result["printed_bytes"] / 1e9, color="red", linestyle=":", label="printed in the paper")
    axis.set(
        xlabel="operations of the compiled step, in order; a loop's body stands once",
        ylabel="GB",
        ylim=(0, peak * 1.15),
    )
    axis.set_title(f"live memory: {result['description']}")
    axis.legend(fontsize=8, loc="upper right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_roofline(result: dict[str, Any], path: Path) -> None:
    """The device's roof, and below it each layer's operations a byte, from nothing fused to all fused."""
    roof = result["roofline"]
    shown: dict[str, dict[str, Any]] = {}
    for row in result["layers"]:
        shown.setdefault("layers, each" if row["layer"].startswith("layers_") else row["layer"], row)
    figure, (top, ranges) = plt.subplots(
        2, 1, figsize=(9, 8), layout="constrained", sharex=True, height_ratios=(1, 1.6)
    )
    edge = [2**exponent for exponent in range(-4, 12)]
    peak = roof["peak_flops"]
    edge = sorted([*edge, peak / roof["bytes_per_second"]]) if peak else edge
    slope = [x * roof["bytes_per_second"] / 1e12 for x in edge]
    top.plot(
        edge, [min(y, peak / 1e12) for y in slope] if peak else slope, color="black", label=roof["title"]
    )
    top.set(
        yscale="log",
        ylabel=f"TFLOP/s within reach, {roof['precision']}",
        title=f"roofline: {result['description']}",
    )
    for at, row in enumerate(shown.values()):
        work = layer_flops(row, "forward") + layer_flops(row, "backward")
        unfused = work / max(row["moved_bytes"]["unfused"], 1)
        fused = work / row["moved_bytes"]["products"] if row["moved_bytes"]["products"] else unfused
        ranges.plot((unfused, fused), (at, at), "o-", color=MODULES[row["module"]], linewidth=4, alpha=0.7)
    ranges.set_yticks(range(len(shown)), list(shown), fontsize=8)
    ranges.invert_yaxis()
    ranges.set(
        xscale="log",
        xlabel="operations a byte: nothing fused (left end) to all but products fused (right end)",
    )
    for axis in (top, ranges):
        axis.grid(alpha=0.3)
        if peak:
            ridge = peak / roof["bytes_per_second"]
            axis.axvline(
                ridge, color="red", linestyle=":", label=f"{ridge:.0f} a byte: bound by memory to the left"
            )
    top.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
