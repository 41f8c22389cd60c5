"""`w2v-jax reproduce section41`: project from which year boards reach an A40's speed and memory."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments import paper
from experiments.costs.devices.records import REFERENCE
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.options.spelling import option_name
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance
from experiments.report.writer import write_report
from experiments.reproduce.comparison import Comparison, Item
from experiments.reproduce.section41_report import draw, markdown

SENSITIVITY_MONTHS = (12.0, 15.0, 18.0, 24.0, 30.0, 36.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section41Arguments:
    """Redo the paper's projection to 2027, vary it, and add the boards that came out since (a minute).

    example: w2v-jax reproduce section41 --doubling-months 24 --out reports/section41
    """

    out: Path
    """Folder for section41.json, section41.md and section41.png."""
    doubling_months: float = paper.DOUBLING_MONTHS
    """Months in which a board's speed doubles."""
    memory_doubling_months: float = paper.DOUBLING_MONTHS
    """Months in which a board's memory doubles. The paper gives none, so the default is the same."""
    from_year: float = paper.PAPER_YEAR
    """Year that the paper's measurements stand for."""
    device: str = "xavier-nx"
    """Board whose line is drawn; the default is the paper's typical board."""
    timings: tuple[Path, ...] = ()
    """Files that runner.py wrote on boards; each corrects the estimate for its device. Default: none."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(Section41Arguments, argv, "w2v-jax reproduce section41")
    for name in ("doubling_months", "memory_doubling_months"):
        if not 1 <= getattr(options, name) <= 600:
            option = option_name(name)
            raise UsageError(f"{option} must be between 1 and 600, got {getattr(options, name):g}")
    if not 1990 <= options.from_year <= 2100:
        raise UsageError(f"--from-year must be a year from 1990 to 2100, got {options.from_year:g}")
    printed = [name for name in paper.TABLE_2 if name != REFERENCE]
    arguments.check_choice("--device", options.device, printed)
    from experiments.costs.devices.timings import read_timings

    with arguments.blaming("--timings"):
        measured = [read_timings(path) for path in options.timings]
    options.out.mkdir(parents=True, exist_ok=True)
    xla_flags.configure_xla(1)
    result = section41(options, measured) | {"provenance": record_provenance("reproduce section41")}
    print(write_report(options.out, "section41", result, markdown, draw))
    print(f"written: {options.out / 'section41.json'}, section41.md, section41.png")


def section41(options: Section41Arguments, measured: list[Any]) -> dict[str, Any]:
    """Compute gaps, years and the boards that exist, as JSON.

    Args:
        options: the assumptions.
        measured: timings of boards, as read_timings gives them.
    """
    from experiments.costs.devices import paper_seconds
    from experiments.costs.devices.costs import DeviceCosts
    from experiments.costs.devices.judgement import COMPARED_BATCH
    from experiments.process.progress import stage
    from profiling.devices import DEVICES
    from profiling.feasibility import growth, years_to_reach

    stage("fitting the step-time model to Table 2")
    costs = DeviceCosts(measured)
    gaps = {
        device: {paper_seconds.name_of(key): gap for key, gap in found.items() if key[0] == "base"}
        for device, found in paper_seconds.slowdowns(REFERENCE).items()
    }
    return {
        "assumptions": {
            "doubling_months": options.doubling_months,
            "memory_doubling_months": options.memory_doubling_months,
            "from_year": options.from_year,
            "five_years_give": growth(5.0, options.doubling_months),
        },
        "device": options.device,
        "projected": {device: _projected(device, found, options) for device, found in gaps.items()},
        "titles": {name: device.title for name, device in DEVICES.items()},
        "sensitivity": [
            {
                "doubling_months": months,
                "years": [
                    options.from_year + years_to_reach(gap, months) for gap in _ends(gaps[options.device])
                ],
            }
            for months in sorted({*SENSITIVITY_MONTHS, options.doubling_months})
        ],
        "boards": [
            _board(name, costs, options)
            for name, device in DEVICES.items()
            if device.kind != "server" and device.memory_bytes is not None
        ],
        "compared": f"base, batch {COMPARED_BATCH} x {paper.TABLE_2_SECONDS:g} s, "
        "the faster of fp32 and 16 bits",
        "printed_year": paper.PREDICTED_YEAR,
        "reference_memory_bytes": DEVICES[REFERENCE].memory_bytes,
    }


def _projected(name: str, gaps: dict[str, float], options: Section41Arguments) -> dict[str, Any]:
    """Project a board of Table 2 from its printed gaps and from the memory of the paper's class."""
    from profiling.devices import in_paper_class
    from profiling.feasibility import years_to_reach

    device = in_paper_class(name)
    return {
        "gaps": gaps,
        "years": [years_to_reach(gap, options.doubling_months) for gap in _ends(gaps)],
        "memory_bytes": device.memory_bytes,
        "memory_years": _memory_years(device, options),
    }


def _ends(gaps: dict[str, float]) -> tuple[float, float]:
    return min(gaps.values()), max(gaps.values())


def _memory_years(device: Any, options: Section41Arguments) -> float:
    """Compute the years until the memory of a device has grown to the A40's; negative where it is larger."""
    from profiling.devices import DEVICES
    from profiling.feasibility import years_to_reach

    gap = DEVICES[REFERENCE].memory_bytes / device.memory_bytes
    return years_to_reach(gap, options.memory_doubling_months)


def _board(name: str, costs: Any, options: Section41Arguments) -> dict[str, Any]:
    """Describe a device as it is: its gap to the A40, its memory, and the years by the doubling model."""
    from experiments.costs.devices.judgement import judge
    from profiling.devices import DEVICES
    from profiling.feasibility import years_to_reach

    device = DEVICES[name]
    ratio = judge(costs, name, 1.0).compute
    # The paper's boards stand for the year of its measurements, newer ones for their own.
    begins = options.from_year if (device.variant_of or name) in paper.TABLE_2 else device.year

    def year_after(years: float) -> float | None:
        return None if begins is None else begins + max(years, 0.0)

    return {
        "device": name,
        "title": device.title,
        "year": device.year,
        "times_by": costs.describe(name)["times_by"],
        "gap": None if ratio is None else 1 / ratio,
        "compute_year": None
        if ratio is None
        else year_after(years_to_reach(1 / ratio, options.doubling_months)),
        "memory_bytes": device.memory_bytes,
        "memory_year": year_after(_memory_years(device, options)),
    }


def compare(result: dict[str, Any]) -> list[Comparison]:
    """Set the earliest and the latest year beside the printed one."""
    years = result["projected"][result["device"]]["years"]
    start, printed = result["assumptions"]["from_year"], result["printed_year"]
    title = result["titles"][result["device"]]
    ends = (
        (f"{title}: year that it reaches the A40's speed, from {start:g}, earliest", start + min(years)),
        (f"{title}: the same, latest, and from {start + 1:g}", start + 1 + max(years)),
    )
    return [
        Comparison(what, str(printed), f"{year:.1f}", verdict=f"{year - printed:+.1f} years")
        for what, year in ends
    ]


def meaning(result: dict[str, Any]) -> str:
    """Say what section 4.1 means."""
    since = [
        board for board in result["boards"] if board["gap"] is not None and board["year"] >= paper.PAPER_YEAR
    ]
    fastest = min(since, key=lambda board: board["gap"])
    slow, quick = result["sensitivity"][-1], result["sensitivity"][0]
    assumed, chosen = result["assumptions"], result["projected"][result["device"]]
    start = assumed["from_year"]
    reached = f"{start + min(chosen['years']):.0f} to {start + 1 + max(chosen['years']):.0f}"
    gap = fastest["gap"]
    behind = f"{gap:.1f} times slower than" if gap > 1 else "as fast as"
    return (
        f"Compute that doubles every {assumed['doubling_months']:g} months gives "
        f"{assumed['five_years_give']:.1f} times in five years, which brings the "
        f"{result['titles'][result['device']]} to the A40's speed in {reached}; the paper says "
        f"{result['printed_year']}. The year depends on that assumption: with "
        f"{quick['doubling_months']:g} months it is {min(quick['years']):.0f}, with "
        f"{slow['doubling_months']:g} it is {max(slow['years']):.0f}. The fastest board that has come out "
        f"since, the {fastest['title']} ({fastest['year']}), is modelled {behind} the A40 (times by: "
        f"{fastest['times_by']})."
    )


ITEM = Item("section41", "Section 4.1: from which year?", ("reproduce", "section41"), compare, meaning)
