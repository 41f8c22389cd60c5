"""Write the profile in Markdown."""

from typing import Any

from experiments.report.footer import footer
from experiments.report.tables import table
from experiments.report.units import gigabytes, percent
from w2v_jax import memory_methods

# Modules in the order of the forward pass, with their colours.
MODULES = {
    "cnn_encoder": "tab:blue",
    "transformer": "tab:orange",
    "quantization": "tab:green",
    "losses and draws": "tab:red",
    "optimizer": "tab:gray",
}
AT_PEAK_ROWS = 8
OPERATIONS = {
    "while": "results of a loop, stacked over its iterations",
}


def operation_name(row: dict[str, Any]) -> str:
    """Name the operation that made a group of buffers."""
    name = str(row["operation"])
    return OPERATIONS.get(name, name)


def layer_flops(row: dict[str, Any], direction: str) -> int:
    """Add up products, elementwise and transcendental operations of a layer."""
    return sum(row[direction][kind] for kind in ("products", "elementwise", "transcendental"))


def by_module(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sum the layers of each module; the last row is the total."""
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
    """Write the whole report."""
    parts = [
        f"# Profile: {result['description']}",
        _modules(result["layers"]),
        f"The whole step is {result['step']['flops'] / 1e9:.4g} GFLOPs. {_cross_check(result)}",
        *_unpriced(result),
        "![layers](layers.png)",
        "## Memory",
        _accountings(result),
        _memory(result),
        *_peak(result),
        "## Time, at best",
        _roofline(result),
        "![roofline](roofline.png)",
        "## A federated round",
        _round(result["round"]),
        f"Computing the profile took {result['seconds_taken']:.0f} s.",
        footer(result["provenance"]),
    ]
    return "\n\n".join(parts) + "\n"


def _modules(layers: list[dict[str, Any]]) -> str:
    """Tabulate parameters, operations and memory by module."""
    rows = by_module(layers)
    flops = rows[-1]["forward"] + rows[-1]["backward"]
    return table(
        (
            "module",
            "M parameters",
            "forward GFLOPs",
            "backward GFLOPs",
            "share",
            "kept: residuals, GB",
            "autograd, GB",
        ),
        [
            (
                row["module"].replace("_", " "),
                f"{row['params'] / 1e6:.4g}",
                f"{row['forward'] / 1e9:.4g}",
                f"{row['backward'] / 1e9:.4g}",
                percent((row["forward"] + row["backward"]) / flops, 1),
                f"{row['residual_bytes'] / 1e9:.3g}",
                f"{row['autograd_bytes'] / 1e9:.3g}",
            )
            for row in rows
        ],
    )


def _cross_check(result: dict[str, Any]) -> str:
    """Compare with XLA's own count."""
    theirs = result["compiled"]["xla_flops"]
    if theirs is None:
        return "XLA's cost analysis gives no count."
    return (
        f"XLA's cost analysis counts {theirs / 1e9:.4g} GFLOPs: it counts the body of a loop once and "
        "elementwise work by its own formulas."
    )


def _unpriced(result: dict[str, Any]) -> list[str]:
    """Name the operations that no row counts."""
    if not result["unpriced"]:
        return []
    names = ", ".join(f"{name} ({count} x)" for name, count in result["unpriced"].items())
    return [f"**These operations have no known price and are in no row: {names}.**"]


def _accountings(result: dict[str, Any]) -> str:
    """Tabulate every way to account for the memory, beside the printed figure where the paper has one."""
    printed = result["printed_bytes"]
    rows = [
        (row["name"], gigabytes(row["bytes"]), f"{row['bytes'] / (printed or 1) - 1:+.0%}", row["meaning"])
        for row in result["accountings"]
    ]
    if printed:
        rows.insert(0, ("the paper", gigabytes(printed), "", "the paper does not name its tool"))
        return table(("accounting", "GB", "against the printed", "meaning"), rows)
    return table(("accounting", "GB", "meaning"), [(name, size, why) for name, size, _, why in rows])


def _memory(result: dict[str, Any]) -> str:
    """Describe what the batch does not change, the plan's origin and the measurement."""
    standing, compiled = result["standing_bytes"], result["compiled"]
    lines = [
        f"Whatever the batch, parameters take {gigabytes(standing['parameters'])} GB, gradients "
        f"{gigabytes(standing['gradients'])} GB and the optimizer state "
        f"{gigabytes(standing['optimizer_state'])} GB."
    ]
    if compiled["target"]:
        options = ", ".join(f"{name}={value}" for name, value in compiled["options"].items())
        lines.append(
            f"The plan is the compiler's for {compiled['target']} ({options or 'default options'}); the "
            "driver and the context take memory beside it."
        )
    else:
        lines.append(f"XLA flags: `{result['provenance']['xla_flags']}`.")
        named = memory_methods.names_of(result["settings"]["method"])
        if "remat-cnn" in named and result["provenance"]["backend"] == "cpu":
            lines.append(
                "XLA:CPU undoes some rematerialisation outside loops, so the CNN layers keep more here than "
                "on a GPU."
            )
    if result["measured"]:
        seconds = sorted(result["measured"]["step_seconds"])
        lines.append(
            f"Measured: {seconds[len(seconds) // 2]:.2f} s a step (median of {len(seconds)} steps, from "
            f"{seconds[0]:.2f} to {seconds[-1]:.2f} s)."
        )
    return "\n".join(lines)


def _peak(result: dict[str, Any]) -> list[str]:
    """Show the timeline and list the temporaries that are live at the peak."""
    timeline = result["compiled"]["timeline"]
    if timeline is None:
        return ["This compiler does not tell when each buffer is live, so there is no timeline."]
    at_peak = timeline["at_peak"]
    live = sum(row["bytes"] for row in at_peak)
    rows = [
        (
            gigabytes(row["bytes"], 3),
            percent(row["bytes"] / live),
            row["buffers"],
            f"{operation_name(row)}, {row['direction']}",
            row["layer"],
        )
        for row in at_peak[:AT_PEAK_ROWS]
    ]
    rest = sum(row["bytes"] for row in at_peak[AT_PEAK_ROWS:])
    rows.append((gigabytes(rest, 3), percent(rest / live), "", "all else", ""))
    parts = sorted(result["residual_parts"].items(), key=lambda part: -part[1])
    words = ", ".join(f"{name} {gigabytes(size)} GB" for name, size in parts)
    return [
        "![timeline](timeline.png)",
        f"The peak is {gigabytes(timeline['peak_bytes'])} GB: {gigabytes(timeline['standing_bytes'])} GB of "
        "arguments and results (parameters, optimizer state, batch) and "
        f"{gigabytes(live)} GB of temporaries:",
        table(("GB", "share", "buffers", "made by", "in"), rows),
        f"All transformer layers together keep (residuals): {words}.",
    ]


def _roofline(result: dict[str, Any]) -> str:
    """Describe the least time that the device's rates allow."""
    roof = result["roofline"]
    rate = (
        f"{roof['peak_flops'] / 1e12:.2f} TFLOP/s in {roof['precision']}"
        if roof["peak_flops"]
        else f"an unknown rate in {roof['precision']}"
    )
    arithmetic = "unknown" if roof["compute_seconds"] is None else f"{roof['compute_seconds']:.3f} s"
    return "\n".join(
        [
            f"{roof['title']}: {roof['bytes_per_second'] / 1e9:.0f} GB/s, {rate} ({roof['source']}).",
            f"A step is {result['step']['flops'] / 1e9:.4g} GFLOPs at {roof['intensity_unfused']:.1f} "
            f"(nothing fused) to {roof['intensity_fused']:.1f} (all but products fused) operations a byte.",
            f"At these rates, arithmetic takes {arithmetic} and traffic takes an estimated "
            f"{roof['fused_seconds']:.3f} (all but products fused) to {roof['unfused_seconds']:.3f} s "
            "(nothing fused). These figures do not predict the seconds of a real step.",
        ]
    )


def _round(price: dict[str, Any]) -> str:
    """Describe the cost of a federated round."""
    return (
        f"{price['clients']} clients x {price['local_steps']} steps: "
        f"{price['client_flops'] / 1e12:.1f} TFLOPs on clients "
        f"({price['client_flops'] / price['clients'] / 1e12:.2f} each), "
        f"{price['server_flops'] / 1e9:.1f} GFLOPs on the server, {gigabytes(price['bytes_down'])} GB down "
        f"and {gigabytes(price['bytes_up'])} GB up, {price['audio_seconds'] / 3600:.2f} h of audio heard."
    )
