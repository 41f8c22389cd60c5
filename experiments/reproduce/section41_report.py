"""Write section41.md and draw section41.png."""

from pathlib import Path
from typing import Any

from experiments import paper
from experiments.report.figures import PAGE_INCHES, label_points, message, picture
from experiments.report.tables import table
from experiments.report.units import UNKNOWN, gigabytes


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    assumed, provenance = result["assumptions"], result["provenance"]
    start, title = assumed["from_year"], result["titles"][result["device"]]
    chosen = result["projected"][result["device"]]
    (low, high), gaps = chosen["years"], chosen["gaps"].values()
    sensitivity = [
        (f"{row['doubling_months']:g}", f"{row['years'][0]:.1f} to {row['years'][1]:.1f}")
        for row in result["sensitivity"]
    ]
    sections = [
        "# Section 4.1: from which year?",
        (
            f"The paper lets compute double every {paper.DOUBLING_MONTHS:g} months and says "
            f"{result['printed_year']}. This report lets it double every {assumed['doubling_months']:g} "
            f"months, which is {assumed['five_years_give']:.1f} times in five years, from {start:g}."
        ),
        (
            f"**{title}, {min(gaps):.1f} to {max(gaps):.1f} times slower than the A40 on base, reaches it in "
            f"{low:.1f} to {high:.1f} years: {start + low:.1f} to {start + high:.1f}, and from {start + 1:g} "
            f"on, {start + 1 + low:.1f} to {start + 1 + high:.1f}.**"
        ),
        "![projection](section41.png)",
        _projected(result),
        (
            "Gaps are Table 2's cells. Memory is the upper end of the paper's class for the device. It "
            f"doubles every {assumed['memory_doubling_months']:g} months, which is an assumption of this "
            "report."
        ),
        f"## If the doubling time is another ({title})",
        table(("months to double", "reaches the A40 in"), sensitivity),
        "## Devices that exist",
        (
            f"Speed: {result['compared']}, by the step-time model (`w2v-jax reproduce table2` states its "
            f"errors). The boards of Table 2 start from {start:g}, all others from their own year. Memory "
            "is what the row's device is sold with, or what its title says; the last column is computed "
            "from it."
        ),
        _boards(result),
        _reading(result),
        f"`{provenance['command']}`, commit {provenance['commit']}",
    ]
    return "\n\n".join(sections) + "\n"


def _projected(result: dict[str, Any]) -> str:
    rows = [
        (
            result["titles"][device],
            f"{min(row['gaps'].values()):.1f} to {max(row['gaps'].values()):.1f} x",
            f"{row['years'][0]:.1f} to {row['years'][1]:.1f}",
            gigabytes(row["memory_bytes"]),
            f"{row['memory_years']:.1f}",
        )
        for device, row in result["projected"].items()
    ]
    reference = gigabytes(result["reference_memory_bytes"])
    head = (
        "device",
        "slower than the A40, base",
        "years to its speed",
        "memory, GB",
        f"years to the A40's {reference} GB",
    )
    return table(head, rows)


def _boards(result: dict[str, Any]) -> str:
    rows = [
        (
            row["title"],
            row["year"],
            UNKNOWN if row["gap"] is None else f"{row['gap']:.1f} x",
            row["times_by"],
            _year(row["compute_year"]),
            gigabytes(row["memory_bytes"]),
            _year(row["memory_year"]),
        )
        for row in result["boards"]
    ]
    head = (
        "device",
        "released",
        "slower than the A40",
        "times by",
        "as fast from",
        "memory, GB",
        f"{gigabytes(result['reference_memory_bytes'])} GB from",
    )
    return table(head, rows)


def _year(year: float | None) -> str:
    return UNKNOWN if year is None else f"{year:.0f}"


def _reading(result: dict[str, Any]) -> str:
    """Say how the fastest device and the largest memories compare with the A40."""
    fastest = min((row for row in result["boards"] if row["gap"] is not None), key=lambda row: row["gap"])
    title, gap = f"{fastest['title']} ({fastest['year']})", fastest["gap"]
    enough = [
        row["title"] for row in result["boards"] if row["memory_bytes"] >= result["reference_memory_bytes"]
    ]
    speed = (
        f"{title} is modelled as fast as the A40"
        if gap <= 1
        else f"The fastest of them, {title}, is modelled {gap:.1f} times slower than the A40"
    )
    memory = f"{' and '.join(enough)} hold" if enough else "none holds"
    return f"{speed}; {memory} the A40's memory or more."


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the gap over the years, and the year over the doubling time."""
    with picture(path, 2, figsize=(PAGE_INCHES, 8)) as (gap, sensitivity):
        _draw_gap(gap, result)
        _draw_sensitivity(sensitivity, result)
        title, months = result["titles"][result["device"]], result["assumptions"]["doubling_months"]
        message(
            gap,
            f"{_reading(result)}\nAbove: a dot is a board in the year of its release; the band is {title}, "
            f"whose compute doubles every {months:g} months, from the smallest to the largest gap of Table "
            f"2. Red line: the A40. Black dotted lines: the paper's year, {result['printed_year']}. Below: "
            f"the same band for other doubling times; the grey line is the paper's {paper.DOUBLING_MONTHS:g} "
            "months. Gaps are those of Table 2, or of the step-time model.",
        )


def _draw_gap(axis: Any, result: dict[str, Any]) -> None:
    """Draw the chosen board's shrinking gap, the boards that exist, and the paper's year."""
    start, months = result["assumptions"]["from_year"], result["assumptions"]["doubling_months"]
    gaps = result["projected"][result["device"]]["gaps"].values()
    years = [start + step / 4 for step in range(41)]
    shrunk = [2 ** ((year - start) * 12 / months) for year in years]
    axis.fill_between(
        years,
        [min(gaps) / factor for factor in shrunk],
        [max(gaps) / factor for factor in shrunk],
        alpha=0.3,
    )
    axis.axhline(1.0, color="red")
    axis.axvline(result["printed_year"], color="black", linestyle=":")
    axis.set(
        yscale="log",
        xlabel="year",
        ylabel="times slower than the A40, base",
        title="Gap to the A40",
        xlim=(2017.5, start + 10),
    )
    axis.grid(alpha=0.3)
    known = {(row["year"], row["gap"]): row["title"] for row in reversed(result["boards"]) if row["gap"]}
    colours = [f"C{place + 1}" for place in range(len(known))]
    for point, colour in zip(known, colours, strict=True):
        axis.plot(*point, "o", color=colour)
    label_points(axis, list(known), list(known.values()), colours)


def _draw_sensitivity(axis: Any, result: dict[str, Any]) -> None:
    """Draw the year in which the chosen board reaches the A40 against the doubling time."""
    doubling = [row["doubling_months"] for row in result["sensitivity"]]
    low, high = zip(*(row["years"] for row in result["sensitivity"]), strict=True)
    axis.fill_between(doubling, low, high, alpha=0.3)
    for years in (low, high):
        axis.plot(doubling, years, "o-", color="C0")
    axis.axhline(result["printed_year"], color="black", linestyle=":")
    axis.axvline(paper.DOUBLING_MONTHS, color="gray", linestyle="--")
    axis.grid(alpha=0.3)
    axis.set(
        xlabel="months in which compute doubles",
        ylabel="year of reaching the A40",
        title="Sensitivity to the doubling time",
    )
