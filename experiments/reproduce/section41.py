"""`w2v-jax reproduce section41`: from which year boards could do it, by a doubling model with its assumptions."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments import paper
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.options.spelling import option_name
from experiments.process import xla_flags
from experiments.process.files import replace_file, write_json
from experiments.process.provenance import record_provenance

SENSITIVITY_MONTHS = (12.0, 15.0, 18.0, 24.0, 30.0, 36.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section41Arguments:
    """The paper's projection to 2027, its sensitivity, and the boards that have come out since (a minute).

    example: w2v-jax reproduce section41 --doubling-months 24 --out reports/section41
    """

    out: Path
    """Folder for section41.json, section41.md and section41.png."""
    doubling_months: float = paper.DOUBLING_MONTHS
    """Months in which a board's speed doubles."""
    memory_doubling_months: float = paper.DOUBLING_MONTHS
    """Months in which its memory doubles; the paper gives none, so the same is assumed."""
    from_year: float = paper.PAPER_YEAR
    """Year that the paper's measurements stand for."""
    device: str = "xavier-nx"
    """The board whose line is drawn: the paper's typical one."""
    timings: tuple[Path, ...] = ()
    """Files that runner.py wrote on boards: each calibrates its device."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(Section41Arguments, argv, "w2v-jax reproduce section41")
    for name in ("doubling_months", "memory_doubling_months"):
        if not 1 <= getattr(options, name) <= 600:
            option = option_name(name)
            raise UsageError(f"{option} must be between 1 and 600, got {getattr(options, name):g}")
    if not 1990 <= options.from_year <= 2100:
        raise UsageError(f"--from-year must be a year from 1990 to 2100, got {options.from_year:g}")
    printed = [name for name in paper.TABLE_2 if name != "a40"]
    arguments.check_choice("--device", options.device, printed)
    from experiments.costs.devices.timings import read_timings

    with arguments.blaming("--timings"):
        measured = [read_timings(path) for path in options.timings]
    options.out.mkdir(parents=True, exist_ok=True)
    xla_flags.configure_xla(1)
    result = section41(options, measured) | {"provenance": record_provenance("reproduce section41")}
    write_json(options.out / "section41.json", result)
    text = markdown(result)
    replace_file(options.out / "section41.md", text)
    draw(result, options.out / "section41.png")
    print(text)
    print(f"written: {options.out / 'section41.json'}, section41.md, section41.png")


def section41(options: Section41Arguments, measured: list[Any]) -> dict[str, Any]:
    """Gaps, years and the boards that exist, as plain numbers."""
    from experiments.costs.devices import paper_seconds as table2
    from experiments.costs.devices.costs import COMPARED_BATCH, REFERENCE, DeviceCosts
    from experiments.process.progress import stage
    from profiling.devices import DEVICES
    from profiling.feasibility import growth, years_to_reach

    stage("fitting the step-time model to Table 2")
    costs = DeviceCosts(measured)
    reference = DEVICES[REFERENCE]
    printed = {
        device: {table2.name_of(key): gap for key, gap in gaps.items() if key[0] == "base"}
        for device, gaps in table2.slowdowns(REFERENCE).items()
    }
    projected = {
        device: {
            "gaps": gaps,
            "years": [years_to_reach(gap, options.doubling_months) for gap in _ends(gaps)],
            "memory_years": _memory_years(DEVICES[device], reference, options),
        }
        for device, gaps in printed.items()
    }
    return {
        "assumptions": {
            "doubling_months": options.doubling_months,
            "memory_doubling_months": options.memory_doubling_months,
            "from_year": options.from_year,
            "five_years_give": growth(5.0, options.doubling_months),
        },
        "device": options.device,
        "projected": projected,
        "titles": {name: DEVICES[name].title for name in DEVICES},
        "sensitivity": [
            {
                "doubling_months": months,
                "years": [
                    options.from_year + years_to_reach(gap, months) for gap in _ends(printed[options.device])
                ],
            }
            for months in sorted({*SENSITIVITY_MONTHS, options.doubling_months})
        ],
        "boards": [
            _board(name, costs, options) for name, device in DEVICES.items() if device.kind != "server"
        ],
        "compared": f"base, batch {COMPARED_BATCH} x {paper.TABLE_2_SECONDS:g} s, the faster of fp32 and 16 bits",
        "printed_year": paper.PREDICTED_YEAR,
        "reference_memory_bytes": reference.memory_bytes,
    }


def _ends(gaps: dict[str, float]) -> tuple[float, float]:
    return min(gaps.values()), max(gaps.values())


def _memory_years(device: Any, reference: Any, options: Section41Arguments) -> float | None:
    from profiling.feasibility import years_to_reach

    if device.verdict_bytes is None:
        return None
    return years_to_reach(reference.memory_bytes / device.verdict_bytes, options.memory_doubling_months)


def _board(name: str, costs: Any, options: Section41Arguments) -> dict[str, Any]:
    """A board as it is: how far from the A40, and from which year by the doubling model."""
    from profiling.devices import DEVICES
    from profiling.feasibility import years_to_reach

    device = DEVICES[name]
    ratio = costs.judge(name, 1.0)["compute"]
    # The paper's boards stand for the year of its measurements, newer ones for their own.
    begins = options.from_year if name in paper.TABLE_2 else device.year
    memory_years = _memory_years(device, DEVICES["a40"], options)
    return {
        "device": name,
        "title": device.title,
        "year": device.year,
        "times_by": costs.describe(name)["times_by"],
        "gap": None if ratio is None else 1 / ratio,
        "compute_year": None
        if ratio is None or begins is None
        else begins + max(years_to_reach(1 / ratio, options.doubling_months), 0.0),
        "memory_bytes": device.memory_bytes,
        "memory_year": None if memory_years is None or begins is None else begins + max(memory_years, 0.0),
    }


def markdown(result: dict[str, Any]) -> str:
    """The report."""
    from experiments.feasibility.report import gigabytes

    a, titles = result["assumptions"], result["titles"]
    chosen = result["projected"][result["device"]]
    low, high = chosen["years"]
    gap_low, gap_high = min(chosen["gaps"].values()), max(chosen["gaps"].values())
    start = a["from_year"]
    lines = [
        "# Section 4.1: from which year?",
        "",
        f"The paper lets compute double every {paper.DOUBLING_MONTHS:g} months and says {result['printed_year']}. Here: every {a['doubling_months']:g} months, which is {a['five_years_give']:.1f} times in five years, from {start:g}.",
        "",
        f"**{titles[result['device']]}, {gap_low:.1f} to {gap_high:.1f} times slower than the A40 on base, reaches it in {low:.1f} to {high:.1f} years: {start + low:.1f} to {start + high:.1f}, and from {start + 1:g} on, {start + 1 + low:.1f} to {start + 1 + high:.1f}.**",
        "",
        "![projection](section41.png)",
        "",
        "| device | slower than the A40, base | years to its speed | years to its 48 GB |",
        "|---|---|---|---|",
    ]
    for device, row in result["projected"].items():
        gaps = row["gaps"].values()
        memory = "unknown" if row["memory_years"] is None else f"{row['memory_years']:.1f}"
        lines.append(
            f"| {titles[device]} | {min(gaps):.1f} to {max(gaps):.1f} x | {row['years'][0]:.1f} to {row['years'][1]:.1f} | {memory} |"
        )
    lines += [
        "",
        f"Gaps are Table 2's cells; memory by the paper's classes, doubling every {a['memory_doubling_months']:g} months, which is an assumption of this report.",
        "",
        f"## If the doubling time is another ({titles[result['device']]})",
        "",
        "| months to double | reaches the A40 in |",
        "|---|---|",
        *(
            f"| {row['doubling_months']:g} | {row['years'][0]:.1f} to {row['years'][1]:.1f} |"
            for row in result["sensitivity"]
        ),
        "",
        "## Devices that exist",
        "",
        f"Speed: {result['compared']}, by the step-time model (`w2v-jax reproduce table2` states its errors). Devices that came after the paper start from their own year.",
        "",
        "| device | of | slower than the A40 | times by | as fast from | memory, GB | 48 GB from |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["boards"]:
        gap = "unknown" if row["gap"] is None else f"{row['gap']:.1f} x"
        year = "unknown" if row["compute_year"] is None else f"{row['compute_year']:.0f}"
        memory = "unknown" if row["memory_year"] is None else f"{row['memory_year']:.0f}"
        lines.append(
            f"| {row['title']} | {row['year']} | {gap} | {row['times_by']} | {year} | {gigabytes(row['memory_bytes'])} | {memory} |"
        )
    lines += ["", *_reading(result)]
    provenance = result["provenance"]
    lines += ["", f"`{provenance['command']}`, commit {provenance['commit']}"]
    return "\n".join(lines) + "\n"


def _reading(result: dict[str, Any]) -> list[str]:
    """What the boards say of the projection, from their own figures."""
    known = [row for row in result["boards"] if row["gap"] is not None]
    nearest_board = min(known, key=lambda row: row["gap"])
    enough = [
        row["title"]
        for row in result["boards"]
        if (row["memory_bytes"] or 0) >= result["reference_memory_bytes"]
    ]
    gap = nearest_board["gap"]
    speed = (
        f"{nearest_board['title']} ({nearest_board['year']}) is modelled as fast as the A40"
        if gap <= 1
        else f"The fastest of them, {nearest_board['title']} ({nearest_board['year']}), is modelled {gap:.1f} times slower than the A40"
    )
    memory = (
        f"{' and '.join(enough)} hold the A40's memory or more" if enough else "none holds the A40's memory"
    )
    return [f"{speed}; {memory}."]


def draw(result: dict[str, Any], path: Path) -> None:
    """The gap over the years with the paper's year, and the year against the doubling time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    a = result["assumptions"]
    start, months = a["from_year"], a["doubling_months"]
    gaps = result["projected"][result["device"]]["gaps"].values()
    years = [start + step / 4 for step in range(41)]
    shrunk = [2 ** ((year - start) * 12 / months) for year in years]
    title = result["titles"][result["device"]]
    left.fill_between(
        years,
        [min(gaps) / s for s in shrunk],
        [max(gaps) / s for s in shrunk],
        alpha=0.3,
        label=f"{title}, doubling every {months:g} months",
    )
    left.axhline(1.0, color="red", label="the A40")
    left.axvline(
        result["printed_year"], color="black", linestyle=":", label=f"the paper: {result['printed_year']}"
    )
    for place, row in enumerate(r for r in result["boards"] if r["gap"] is not None):
        left.plot(row["year"], row["gap"], "o", color=f"C{place + 1}")
        left.annotate(
            row["title"], (row["year"], row["gap"]), fontsize=8, xytext=(5, 4), textcoords="offset points"
        )
    left.set(
        yscale="log",
        xlabel="year (boards: of release)",
        ylabel="times slower than the A40, base",
        title="Compute",
        xlim=(2017.5, start + 10),
    )
    doubling = [row["doubling_months"] for row in result["sensitivity"]]
    right.fill_between(
        doubling,
        [row["years"][0] for row in result["sensitivity"]],
        [row["years"][1] for row in result["sensitivity"]],
        alpha=0.3,
    )
    for place in (0, 1):
        right.plot(doubling, [row["years"][place] for row in result["sensitivity"]], "o-", color="C0")
    right.axhline(
        result["printed_year"], color="black", linestyle=":", label=f"the paper: {result['printed_year']}"
    )
    right.axvline(
        paper.DOUBLING_MONTHS,
        color="gray",
        linestyle="--",
        label=f"the paper: {paper.DOUBLING_MONTHS:g} months",
    )
    right.set(
        xlabel="months in which compute doubles",
        ylabel=f"year in which {title} reaches the A40",
        title="Sensitivity to the doubling time",
    )
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
