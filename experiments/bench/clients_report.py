"""The report of `bench clients`. All statements follow from the measured rounds."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.figures import PAGE_INCHES, label_ends, message, picture
from experiments.report.footer import footer
from experiments.report.statistics import interval
from experiments.report.tables import table

EXPLANATION = {
    "loop": "one jitted client step after another, one client at a time, lax.conv",
    "vmap_lax": "all clients vmapped on one device, lax.conv",
    "vmap": "all clients vmapped on one device, convolutions as matrix products",
    "auto": "the engine's own choice of lanes, chunk and convolution",
}


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    rows = result["rows"]
    parts = [
        "# Seconds per round for K clients",
        f"Workload: {result['workload']}. The runs of all methods are interleaved. The table shows "
        "medians, and the 10th to 90th percentile of the ratio to `auto`, run by run. All methods end with "
        "the same parameters, to 1e-4 of their norm.",
        table(
            ("K", "method", "lanes x chunk", "seconds", "ratio to auto"),
            [
                (
                    row["clients"],
                    row["method"],
                    f"{row['lanes']} x {row['chunk']}",
                    f"{row['seconds_per_round']:.3f}",
                    f"{row['ratio_to_auto']:.2f} "
                    f"({row['ratio_to_auto_p10']:.2f} to {row['ratio_to_auto_p90']:.2f})",
                )
                for row in rows
            ],
        ),
        "\n".join(verdict(clients, rows) for clients in sorted({row["clients"] for row in rows})),
        f"± is the half width of Student's t interval of the mean ratio: all {comparisons(rows)} intervals "
        "together hold their means with a probability of 95 % (Bonferroni).",
        "\n".join(f"- `{name}`: {text}" for name, text in EXPLANATION.items()),
        "![seconds](clients.png)",
        footer(result["provenance"]),
    ]
    return "\n\n".join(parts) + "\n"


def comparisons(rows: list[dict[str, Any]]) -> int:
    """Count the comparisons of a method with `auto`."""
    return sum(row["method"] != "auto" for row in rows)


def verdict(clients: int, rows: list[dict[str, Any]]) -> str:
    """Compare `auto` at K clients with the fastest other method, by the interval of their mean ratio."""
    samples = {row["method"]: np.array(row["samples"]) for row in rows if row["clients"] == clients}
    auto = samples.pop("auto")
    ratios = {method: seconds / auto for method, seconds in samples.items()}
    best = min(ratios, key=lambda method: float(np.mean(ratios[method])))
    mean = float(np.mean(ratios[best]))
    half = interval(ratios[best].tolist(), comparisons(rows))
    if half is None:
        return f"- K = {clients}: {best} takes {mean:.2f} x auto in a single run, which decides nothing."
    times = f"{best}, the fastest other method, takes {mean:.2f} ± {half:.2f} x auto"
    if mean + half < 1:
        return f"- K = {clients}: auto is NOT the fastest: {times}."
    if mean - half > 1:
        return f"- K = {clients}: auto is the fastest: {times}."
    return f"- K = {clients}: no difference is shown: {times}."


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw seconds per round against K."""
    rows = result["rows"]
    counts = sorted({row["clients"] for row in rows})
    with picture(path, figsize=(PAGE_INCHES, 4.8)) as axis:
        for method in EXPLANATION:
            own = [row for row in rows if row["method"] == method]
            middle = np.array([row["seconds_per_round"] for row in own])
            low, high = (np.array([row[key] for row in own]) for key in ("seconds_p10", "seconds_p90"))
            at, errors = [row["clients"] for row in own], [middle - low, high - middle]
            axis.errorbar(at, middle, errors, marker="o", capsize=3, label=method)
        axis.set(xlabel="clients a round (K)", ylabel="seconds a round", title="One federated round")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.grid(alpha=0.3, which="both")
        label_ends(axis)
        message(
            axis,
            f"{verdict(counts[-1], rows).removeprefix('- ')} Points are medians of "
            f"{min(len(row['samples']) for row in rows)} rounds or more; bars are the 10th to the 90th "
            f"percentile. Workload: {result['workload']}.",
        )
