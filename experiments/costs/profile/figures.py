"""Draw the profile: layers, timeline and roofline."""

from pathlib import Path
from typing import Any

from experiments.costs.profile.report import MODULES, layer_flops, operation_name
from experiments.report.figures import PAGE_INCHES, legend_above, message, picture


def draw(result: dict[str, Any], folder: Path) -> list[str]:
    """Draw layers.png, roofline.png and, where there is a timeline, timeline.png; return their names."""
    draw_layers(result["layers"], result["description"], folder / "layers.png")
    draw_roofline(result, folder / "roofline.png")
    if not result["compiled"]["timeline"]:
        (folder / "timeline.png").unlink(missing_ok=True)  # an earlier run in this folder may have drawn it
        return ["layers.png", "roofline.png"]
    draw_timeline(result, folder / "timeline.png")
    return ["layers.png", "roofline.png", "timeline.png"]


def draw_layers(layers: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draw kept memory and operations, forward and backward, by layer."""
    at = range(len(layers))
    colours = [MODULES[row["module"]] for row in layers]
    forward = [layer_flops(row, "forward") / 1e9 for row in layers]
    backward = [layer_flops(row, "backward") / 1e9 for row in layers]
    autograd, residuals = (
        [row[name] / 1e9 for row in layers] for name in ("autograd_bytes", "residual_bytes")
    )
    size = (PAGE_INCHES, 0.25 * len(layers) + 2.3)
    with picture(path, columns=2, figsize=size, sharey=True) as (memory, compute):
        memory.barh(at, autograd, 0.8, color="lightgray")
        memory.barh(at, residuals, 0.4, color=colours)
        memory.set(xlabel="kept for the backward pass, GB", title="memory")
        memory.set_yticks(at, [row["layer"] for row in layers], fontsize=8)
        memory.invert_yaxis()
        compute.barh(at, forward, 0.8, color=colours)
        compute.barh(at, backward, 0.8, left=forward, color=colours, alpha=0.45)
        compute.set(xlabel="operations, GFLOP", title="compute")
        for axis in (memory, compute):
            axis.grid(alpha=0.3, axis="x")
        memory.figure.suptitle(title)
        names = [row["layer"] for row in layers]
        work = [one + other for one, other in zip(forward, backward, strict=True)]
        message(
            memory,
            f"{names[residuals.index(max(residuals))]} keeps most ({max(residuals):.2f} GB), "
            f"{names[work.index(max(work))]} computes most ({max(work):.0f} GFLOP). Memory: wide grey bars "
            "are what an eager framework keeps (autograd), narrow coloured ones what this program keeps "
            "(residuals). Compute: forward, then backward, paler. All is counted, nothing measured.",
        )


def draw_timeline(result: dict[str, Any], path: Path) -> None:
    """Draw live memory over the step, mark its peak and shade what is live all along."""
    timeline = result["compiled"]["timeline"]
    standing, peak = timeline["standing_bytes"] / 1e9, timeline["peak_bytes"] / 1e9
    moments = timeline["moments"]
    live = [standing + size / 1e9 for size in timeline["live_bytes"]]
    largest = "\n".join(
        f"{row['bytes'] / 1e9:.2f} GB {row['layer']} ({operation_name(row)})"
        for row in timeline["at_peak"][:4]
    )
    with picture(path, figsize=(PAGE_INCHES, 5)) as axis:
        axis.fill_between(moments, 0, standing, color="lightgray", label="parameters, optimizer state, batch")
        for phase, colour in (
            ("forward", "tab:blue"),
            ("backward", "tab:orange"),
            ("optimizer", "tab:green"),
        ):
            inside = [p == phase for p in timeline["phases"]]
            axis.fill_between(
                moments, standing, live, where=inside, color=colour, alpha=0.5, step="mid", label=phase
            )
        axis.plot(moments, live, color="black", linewidth=0.8)
        axis.plot(timeline["peak_moment"], peak, "x", color="red", markersize=11, markeredgewidth=2.5)
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
            axis.axhline(
                result["printed_bytes"] / 1e9, color="red", linestyle=":", label="printed in the paper"
            )
        axis.set(
            xlabel="operations of the compiled step, in order; the body of a loop appears once",
            ylabel="live memory, GB",
            ylim=(0, peak * 1.5),
        )
        axis.set_title(f"live memory: {result['description']}")
        legend_above([axis])
        message(
            axis,
            f"The peak of {peak:.2f} GB is {largest_phase(timeline)}. Memory is that of the compiler's "
            "buffers, read from the compiled program; nothing is measured.",
        )


def largest_phase(timeline: dict[str, Any]) -> str:
    """Say in which phase the peak lies."""
    at = timeline["moments"].index(timeline["peak_moment"])
    return f"in the {timeline['phases'][at]} pass"


def draw_roofline(result: dict[str, Any], path: Path) -> None:
    """Draw the device's roof and, below it, the range of each layer's operations a byte."""
    roof = result["roofline"]
    peak, bandwidth = roof["peak_flops"], roof["bytes_per_second"]
    edge = sorted([2**exponent for exponent in range(-4, 12)] + ([peak / bandwidth] if peak else []))
    reach = [min(x * bandwidth, peak or float("inf")) / 1e12 for x in edge]
    with picture(path, rows=2, figsize=(PAGE_INCHES, 8), sharex=True, height_ratios=(1, 1.6)) as (
        top,
        ranges,
    ):
        top.plot(edge, reach, color="black", linewidth=1.5)
        top.set(
            yscale="log",
            ylabel=f"reachable TFLOP/s, {roof['precision']}",
            title=f"roofline: {result['description']}",
        )
        _draw_ranges(ranges, result["layers"])
        for axis in (top, ranges):
            axis.grid(alpha=0.3)
            if peak:
                ridge = peak / bandwidth
                axis.axvline(ridge, color="red", linestyle=":")
        waiting = _waiting(result["layers"], peak / bandwidth) if peak else ""
        message(
            top,
            f"{waiting}Above: the rate within reach of {roof['title']}, by its data sheet; left of the red "
            "line a layer waits for memory. Below: a bar for each layer, from its operations a byte with "
            "nothing fused to those with all but products fused. Nothing is measured.",
        )


def _waiting(layers: list[dict[str, Any]], ridge: float) -> str:
    """Name the layers that wait for memory, below `ridge` operations a byte, even if fused."""
    names = [name for name, row in _rows(layers).items() if _operations_per_byte(row)[1] < ridge]
    if not names:
        return f"Fused, every layer makes at least {ridge:.0f} operations a byte. "
    return f"Even fused, these layers make fewer than {ridge:.0f} operations a byte: {', '.join(names)}. "


def _rows(layers: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Give a row for each layer, and one for all Transformer layers, which are alike."""
    shown: dict[str, dict[str, Any]] = {}
    for row in layers:
        shown.setdefault("layers, each" if row["layer"].startswith("layers_") else row["layer"], row)
    return shown


def _operations_per_byte(row: dict[str, Any]) -> tuple[float, float]:
    """Compute a layer's operations a byte with nothing fused, and with all but products fused."""
    work = layer_flops(row, "forward") + layer_flops(row, "backward")
    unfused = work / max(row["moved_bytes"]["unfused"], 1)
    return unfused, work / row["moved_bytes"]["products"] if row["moved_bytes"]["products"] else unfused


def _draw_ranges(axis: Any, layers: list[dict[str, Any]]) -> None:
    """Draw a bar for each layer from its operations a byte with nothing fused to those with all fused."""
    shown = _rows(layers)
    for at, row in enumerate(shown.values()):
        ends = _operations_per_byte(row)
        axis.plot(ends, (at, at), "o-", color=MODULES[row["module"]], linewidth=4, alpha=0.7)
    axis.set_yticks(range(len(shown)), list(shown), fontsize=8)
    axis.invert_yaxis()
    axis.set(
        xscale="log",
        xlabel="operations a byte",
    )
