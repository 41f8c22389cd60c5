"""The report of `bench utilisation`. All statements follow from the measured numbers."""

from pathlib import Path
from typing import Any

from experiments.report.figures import PAGE_INCHES, message, picture
from experiments.report.footer import footer
from experiments.report.tables import table
from experiments.report.units import percent

METHOD = (
    "The profiler gives the device time of each kernel. The time of a kernel of several fused operations "
    "counts for the module of the last one. Where CUDA graphs hide more than a fifth of the time, the "
    "modules are those of a second compilation without graphs. On a CPU, operations run side by side and "
    "wait for one another, so their times add up to more than the step. The least time by a roofline is the "
    "longer of two: the module's products at the device's rate, and the bytes of their operands and results "
    "at its bandwidth, as if all else were fused with them. For the optimizer, the bytes are those that an "
    "update reads and writes."
)


def clients_of(row: dict[str, Any]) -> str:
    """Format the number of clients of a row."""
    return f"{row['clients']} client" + ("s" if row["clients"] > 1 else "")


def sentence(row: dict[str, Any]) -> str:
    """Describe a row in one line."""
    share = f", {percent(row['utilisation'], 1)} of the device's rate" if row["utilisation"] else ""
    return (
        f"{clients_of(row)} ({row['form']}): {1e3 * row['seconds']:.2f} ms a step, "
        f"{row['products'] / row['seconds'] / 1e12:.3g} TFLOP/s of products{share}"
    )


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    made = result["provenance"]
    peak, bandwidth = result["peak_flops"], result["bytes_per_second"]
    rates = "the device's rates are not known"
    if peak and bandwidth:
        rates = f"rates: {peak / 1e12:.4g} TFLOP/s and {bandwidth / 1e12:.3g} TB/s ({result['rates']})"
    parts = [
        "# How much of a device a training step uses",
        f"`{result['model']}`, batch {result['batch']} of {result['seconds']:g} s a client, "
        f"{result['precision']}, {result['optimizer']}, "
        f"{'with' if result['dropout'] else 'without'} dropout; {made['device']}; {rates}. Operations are "
        "those of products alone, forward and backward, without taps on padding.",
        "\n".join(f"- {sentence(row)}" for row in result["rows"]),
        METHOD,
        "![by module](utilisation.png)",
    ]
    for row in result["rows"]:
        parts += _section(row)
    return "\n\n".join([*parts, footer(made)]) + "\n"


def _section(row: dict[str, Any]) -> list[str]:
    """Write the section of one number of clients and one form."""
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
    return [
        f"## {clients_of(row)}, {row['form']}",
        f"A step takes {1e3 * row['seconds']:.2f} ms (median; p10 to p90: {1e3 * row['seconds_p10']:.2f} to "
        f"{1e3 * row['seconds_p90']:.2f}) and its kernels take {1e3 * row['busy_seconds']:.2f} ms; "
        f"{1e3 * row['unattributed_seconds']:.2f} ms of these belong to no known operation. The plan is "
        f"{row['planned_bytes'] / 2**30:.2f} GiB, and compiling took {row['compile_seconds']:.0f} s.",
        table(("module", "device, ms", "share, %", "GFLOP", "TFLOP/s", "least by roofline, ms"), lines),
    ]


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw device time by module beside the least that a roofline allows, a panel for each row."""
    rows = result["rows"]
    with picture(
        path, columns=len(rows), figsize=(max(PAGE_INCHES, 5 * len(rows)), 6.8), squeeze=False
    ) as axes:
        for axis, row in zip(axes.flat, rows, strict=True):
            modules = [module for module in row["modules"] if module["seconds"] > 0.002 * row["busy_seconds"]]
            names = [module["module"] for module in modules]
            times = [1e3 * module["seconds"] for module in modules]
            axis.barh(names, times, color="tab:gray")
            if all(module["roofline_seconds"] is not None for module in modules):
                least = [1e3 * module["roofline_seconds"] for module in modules]
                axis.barh(names, least, height=0.4, color="tab:blue")
            axis.invert_yaxis()
            axis.set(title=f"{clients_of(row)}, {row['form']}", xlabel="device time of a step, ms")
            axis.grid(alpha=0.3, axis="x")
        message(
            axes[0, 0],
            "\n".join(
                f"{sentence(row)} (median; p10 to p90: {1e3 * row['seconds_p10']:.2f} to "
                f"{1e3 * row['seconds_p90']:.2f} ms)."
                for row in rows
            )
            + "\nGrey: device time by the profiler; work on several cores is added up. Blue, where the rates "
            "of the device are known: the least that a roofline allows. Modules under 0.2 % of the time are "
            "left out.",
        )
