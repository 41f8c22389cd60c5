"""Draw the feasibility table: verdicts, time, memory."""

from collections import Counter
from pathlib import Path
from typing import Any

from experiments import paper
from experiments.costs.devices.records import REFERENCE, RunRow
from experiments.feasibility.report import shown_rows, shown_setting
from experiments.feasibility.verdicts import CRITERIA, Answer, answer, unmet, verdicts_of
from experiments.report.figures import PAGE_INCHES, SMALL_POINTS, label_ends, message, picture
from experiments.report.units import GIGA, by_reason

ANSWER_COLOURS: dict[Answer, str] = {"yes": "tab:green", "borderline": "tab:orange", "no": "tab:red"}


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw verdicts.png, time.png and memory.png into the folder of `path`."""
    _draw_verdicts(result, path.with_name("verdicts.png"))
    _draw_time(result, path.with_name("time.png"))
    _draw_memory(result, path.with_name("memory.png"))


def _draw_verdicts(result: dict[str, Any], path: Path) -> None:
    """Draw each device's ratios against the line that they must reach, a panel for each criterion."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    devices = verdicts_of(result)
    size = (PAGE_INCHES, 1.9 + 0.27 * len(devices))
    with picture(path, 1, len(CRITERIA), figsize=size, sharey=True) as axes:
        for axis, (name, label) in zip(axes, CRITERIA.items(), strict=True):
            for at, device in enumerate(devices):
                ratio = device.ratio(name)
                if ratio is not None:
                    axis.plot(ratio, at, "o", color=ANSWER_COLOURS[answer(device, name)])
            axis.axvline(1.0, color="black", linewidth=1)
            axis.set(xscale="log")
            axis.set_title(label.replace(", ", ",\n"), fontsize=10)
            low, high = axis.get_xlim()
            axis.set_xlim(min(low, 0.2), max(high, 5))
            axis.xaxis.set_major_locator(LogLocator(numticks=3))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
            axis.tick_params(labelsize=SMALL_POINTS)
            axis.grid(alpha=0.3)
        axes[0].set_yticks(range(len(devices)), [device.title for device in devices], fontsize=SMALL_POINTS)
        axes[0].invert_yaxis()
        message(
            axes[0],
            f"{unmet(devices)} Horizontal axes: what there is over what it takes, base; at or right of the "
            "black line it is enough. Compute and energy are compared with the A40. Green: enough. Orange: "
            "the ratio's own error could turn it. Red: too little. No dot: unknown. Ratios come from plans "
            "of compilers, from printed, measured or modelled times of a step, and from data sheets.",
        )


def _draw_time(result: dict[str, Any], path: Path) -> None:
    """Draw the days of a whole run by device; hollow where it does not fit."""
    batch, seconds = shown_setting(result)
    rows = [row for row in shown_rows(result) if row.run_days is not None]
    devices = list(dict.fromkeys(row.device for row in rows))
    models = list(dict.fromkeys(row.model for row in rows))
    with picture(path, figsize=(PAGE_INCHES, 2.4 + 0.36 * max(len(devices), 1))) as axis:
        drawn = []
        for place, model in enumerate(models):
            for at, device in enumerate(devices):
                own = [row for row in rows if (row.device, row.model) == (device, model)]
                if own:
                    across = at + (place - (len(models) - 1) / 2) * 0.3
                    drawn.append(min(own, key=_fitting_and_fast))
                    _mark(axis, across, drawn[-1], f"C{place}")
        axis.axvline(paper.TOTAL_DAYS_ON_A40, color="black", linestyle=":")
        axis.set_yticks(range(len(devices)), [result["devices"][device]["title"] for device in devices])
        axis.invert_yaxis()
        axis.set(
            xscale="log",
            xlabel="days of the whole run",
            title=f"Whole run, batch {batch} x {seconds:g} s",
        )
        axis.set_xlim(axis.get_xlim()[0] * 0.8, axis.get_xlim()[1] * 8)
        axis.grid(alpha=0.3, axis="x")
        message(
            axis,
            f"{_fastest(result, rows)}The dotted line is the paper's A40: {paper.TOTAL_DAYS_ON_A40:g} days. "
            "A mark is one setting, the fastest precision and method that fits. Times of a step behind the "
            f"marks: {by_reason(Counter(str(row.time_by) for row in drawn))}. Hollow: the step does not fit, "
            "and the time is what it would take.",
        )


def _fastest(result: dict[str, Any], rows: list[RunRow]) -> str:
    """Name the fastest device but the reference; empty where there is no other."""
    others = [row for row in rows if row.device != REFERENCE]
    if not others:
        return ""
    best = min(others, key=_fitting_and_fast)
    title = result["devices"][best.device]["title"]
    return f"The A40 aside, the fastest is {title}: {best.run_days or 0:,.0f} days for {best.model}. "


def _fitting_and_fast(row: RunRow) -> tuple[bool, float]:
    """Order settings: those that fit first, then by their days."""
    return row.verdict != "fits", row.run_days or 0.0


def _mark(axis: Any, at: float, row: RunRow, colour: str) -> None:
    """Draw one setting's days, and name the model beside them."""
    fits = row.verdict == "fits"
    axis.plot(row.run_days, at, "o", color=colour, markerfacecolor=colour if fits else "white", markersize=5)
    note = f"{row.model}: {row.run_days:,.0f} days" + ("" if fits else f" ({row.verdict})")
    axis.annotate(
        note, (row.run_days, at), xytext=(7, 0), textcoords="offset points",
        fontsize=SMALL_POINTS, va="center", color=colour,
    )  # fmt: skip


def _draw_memory(result: dict[str, Any], path: Path) -> None:
    """Draw plans against length; usable memory as lines, the lengths of tasks as a band and a line."""
    models = list(dict.fromkeys(row["model"] for row in result["rows"]))
    batch, _ = shown_setting(result)
    usable = {
        name: held["usable_bytes"]
        for name, held in result["devices"].items()
        if held["usable_bytes"] is not None
    }
    boards = [name for name in ("xavier-nx", "orin-nx", "rpi-4", *usable) if name in usable]
    device = boards[0] if boards else None
    title = result["devices"][device]["title"] if device else ""
    size = (PAGE_INCHES, 4.2 * len(models) + 0.6)
    with picture(path, len(models), 1, figsize=size, squeeze=False) as axes:
        for axis, model in zip(axes[:, 0], models, strict=True):
            top = _plans(axis, result, device, model, batch)
            _usable_lines(axis, usable, 1.3 * top)
            axis.axvline(paper.RELEASED_MODELS_SECONDS, color="tab:purple", linestyle=":")
            axis.axvspan(*paper.KEYWORD_SECONDS, color="tab:green", alpha=0.12)
            axis.set(
                xlabel="length of each utterance, s",
                ylabel="compiler's plan, GB",
                title=f"{model}, batch {batch}, planned for {title}",
                ylim=(0, max(1.3 * top, 1)),
            )
            axis.grid(alpha=0.3)
            label_ends(axis)
        message(
            axes[0, 0],
            "A step fits a device where its line stays below the grey line that names the device; devices "
            "beyond the axis hold more. A point is one plan, compiled or fitted to compiled ones. Green "
            "band: lengths of keyword spotting. Violet line: released models train on clips of more than "
            f"{paper.RELEASED_MODELS_SECONDS:g} s.",
        )


def _plans(axis: Any, result: dict[str, Any], device: str | None, model: str, batch: int) -> float:
    """Draw a device's plans by method and precision; give the largest in GB."""
    top = 0.0
    rows = [RunRow.from_json(row) for row in result["rows"]]
    for method, style in (("plain", "-"), ("remat", "--"), ("exact", ":")):
        for precision, colour in (("fp32", "tab:blue"), ("mixed", "tab:orange")):
            points = sorted(
                (row.seconds, row.plan_bytes / GIGA)
                for row in rows
                if (row.device, row.model, row.method, row.precision, row.batch)
                == (device, model, method, precision, batch)
                and row.plan_bytes is not None
            )
            if points:
                label = f"{method}, {precision}"
                axis.plot(
                    *zip(*points, strict=True), style, color=colour, marker="o", markersize=3, label=label
                )
                top = max(top, points[-1][1])
    return top


def _usable_lines(axis: Any, usable: dict[str, int], below: float) -> None:
    """Draw usable memory of devices, in bytes, as lines up to `below` GB."""
    levels: dict[float, list[str]] = {}
    for name, size in usable.items():
        levels.setdefault(round(size / GIGA, 1), []).append(name)
    ends = axis.get_xlim()
    for level, names in sorted(levels.items()):
        if level < below:
            more = f" + {len(names) - 2}" if len(names) > 2 else ""
            label = f"usable: {', '.join(names[:2])}{more}"
            axis.plot(ends, [level] * 2, color="gray", linewidth=1, label=label)
    axis.set_xlim(ends)
