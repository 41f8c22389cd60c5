"""utilisation.md and utilisation.png: every sentence is worked out from the numbers beside it."""

from pathlib import Path
from typing import Any

from experiments.report.tables import table


def sentence(row: dict[str, Any]) -> str:
    """A row in words."""
    share = "" if row["utilisation"] is None else f", {100 * row['utilisation']:.1f} % of the device's rate"
    clients = f"{row['clients']} client" + ("s" if row["clients"] > 1 else "")
    return (
        f"{clients} ({row['form']}): {1e3 * row['seconds']:.2f} ms a step, "
        f"{row['products'] / row['seconds'] / 1e12:.3g} TFLOP/s of products{share}"
    )


def markdown(result: dict[str, Any]) -> str:
    """What readers see."""
    made = result["provenance"]
    peak, bandwidth = result["peak_flops"], result["bytes_per_second"]
    said = "no rates are known"
    if peak and bandwidth:
        said = f"rates: {peak / 1e12:.4g} TFLOP/s and {bandwidth / 1e12:.3g} TB/s ({result['rates']})"
    parts = [
        "# How much of a device a training step uses",
        f"`{result['model']}`, batch {result['batch']} of {result['seconds']:g} s a client, {result['precision']}, "
        f"{result['optimizer']}, {'with' if result['dropout'] else 'without'} dropout; {made['device']}; {said}. "
        "Operations are those of products alone, forward and backward, taps on padding left out.",
        "\n".join(f"- {sentence(row)}" for row in result["rows"]),
        "Device time is the profiler's, of kernels; a kernel of several fused operations counts where its last one stands. On a CPU operations run side by side "
        "and wait for one another, so that they add up to more than the step. "
        "The least time by a roofline is the longer of a module's products at the device's rate and of the bytes of its products' "
        "operands and results at its bandwidth, as if all else were fused with them; of the optimizer, of what an update reads and "
        "writes.",
        "![by module](utilisation.png)",
    ]
    for row in result["rows"]:
        clients = f"{row['clients']} client" + ("s" if row["clients"] > 1 else "")
        lines = [
            (
                module["module"],
                f"{1e3 * module['seconds']:.3f}",
                f"{100 * module['seconds'] / row['busy_seconds']:.1f}",
                f"{module['products'] / 1e9:.1f}",
                f"{module['products'] / module['seconds'] / 1e12:.3g}" if module["seconds"] else "",
                "" if module["roofline_seconds"] is None else f"{1e3 * module['roofline_seconds']:.3f}",
            )
            for module in row["modules"]
        ]
        parts += [
            f"## {clients}, {row['form']}",
            f"Median {1e3 * row['seconds']:.2f} ms (p10 to p90: {1e3 * row['seconds_p10']:.2f} to {1e3 * row['seconds_p90']:.2f}), "
            f"kernels {1e3 * row['busy_seconds']:.2f} ms ({1e3 * row['unattributed_seconds']:.2f} of them of no known operation; where CUDA "
            "graphs hide more than a fifth, modules are those of a second compilation without), "
            f"{row['planned_bytes'] / 2**30:.2f} GiB planned, "
            f"compiled in {row['compile_seconds']:.0f} s.",
            table(("module", "device, ms", "share, %", "GFLOP", "TFLOP/s", "least by roofline, ms"), lines),
        ]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    parts.append(f"Commit {made['commit']}; {versions}.\n\n```\n{made['command']}\n```")
    return "\n\n".join(parts) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Device time by module beside the least that a roofline allows, a panel for each row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = result["rows"]
    figure, axes = plt.subplots(
        1, len(rows), figsize=(7.5 * len(rows), 6.5), layout="constrained", squeeze=False
    )
    for axis, row in zip(axes.flat, rows, strict=True):
        modules = [module for module in row["modules"] if module["seconds"] > 0.002 * row["busy_seconds"]]
        names = [module["module"] for module in modules]
        axis.barh(names, [1e3 * module["seconds"] for module in modules], color="tab:gray", label="measured")
        if all(module["roofline_seconds"] is not None for module in modules):
            least = [1e3 * module["roofline_seconds"] for module in modules]
            axis.barh(names, least, height=0.4, color="tab:blue", label="least by roofline")
        axis.invert_yaxis()
        axis.set(
            title=f"{row['clients']} client{'s' if row['clients'] > 1 else ''}, {row['form']}",
            xlabel="device time of a step, ms",
        )
        axis.legend(loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)
