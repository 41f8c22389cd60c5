"""Draw the feasibility table: verdicts, time, memory."""

from pathlib import Path
from typing import Any

from experiments import paper
from experiments.costs.devices.records import RunRow
from experiments.feasibility.report import shown_rows, shown_setting
from experiments.feasibility.verdicts import CRITERIA, verdicts_of
from experiments.report.figures import picture
from experiments.report.units import GIGA


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw verdicts.png, time.png and memory.png into the folder of `path`."""
    _draw_verdicts(result, path.with_name("verdicts.png"))
    _draw_time(result, path.with_name("time.png"))
    _draw_memory(result, path.with_name("memory.png"))


def _draw_verdicts(result: dict[str, Any], path: Path) -> None:
    """Draw each device's ratios against the line that they must reach."""
    devices = verdicts_of(result)
    with picture(path, figsize=(10, 1.6 + 0.4 * len(devices))) as axis:
        for place, (name, label) in enumerate(CRITERIA.items()):
            ratios = [(device.ratio(name), index) for index, device in enumerate(devices)]
            known = [(ratio, index) for ratio, index in ratios if ratio is not None]
            if known:
                across, at = zip(*known, strict=True)
                spread = [index + (place - 2) * 0.13 for index in at]
                axis.scatter(across, spread, label=label, color=f"C{place}", s=36, zorder=3)
        axis.axvline(1.0, color="red", linewidth=1.5, label="there: the A40's, or what it takes")
        axis.axvspan(1.0, max(axis.get_xlim()[1], 10), color="tab:green", alpha=0.07)
        axis.set_yticks(range(len(devices)), [device.title for device in devices])
        axis.invert_yaxis()
        axis.set(
            xscale="log",
            xlabel="what there is over what it takes; no dot: unknown",
            title="Are we there yet? base, device by device",
        )
        axis.grid(alpha=0.3)
        axis.figure.legend(fontsize=8, ncols=4, loc="outside lower center")


def _draw_time(result: dict[str, Any], path: Path) -> None:
    """Draw the days of a whole run by device; hatched where it does not fit."""
    batch, seconds = shown_setting(result)
    rows = [row for row in shown_rows(result) if row.run_days is not None]
    devices = list(dict.fromkeys(row.device for row in rows))
    models = list(dict.fromkeys(row.model for row in rows))
    with picture(path, figsize=(10, 1.6 + 0.45 * max(len(devices), 1))) as axis:
        for place, model in enumerate(models):
            for at, device in enumerate(devices):
                own = [row for row in rows if (row.device, row.model) == (device, model)]
                if own:
                    across = at + (place - (len(models) - 1) / 2) * 0.38
                    _bar(axis, across, min(own, key=_fitting_and_fast), place, model if at == 0 else None)
        axis.axvline(
            paper.TOTAL_DAYS_ON_A40,
            color="red",
            linestyle=":",
            label=f"the paper, A40: {paper.TOTAL_DAYS_ON_A40:g} days",
        )
        axis.set_yticks(range(len(devices)), [result["devices"][device]["title"] for device in devices])
        axis.invert_yaxis()
        axis.set(
            xscale="log",
            xlabel="days of the whole run; hatched: would be, if it fitted",
            title=f"Time of the whole run, batch {batch} x {seconds:g} s, the fastest precision and method",
        )
        axis.set_xlim(axis.get_xlim()[0], axis.get_xlim()[1] * 4)
        axis.grid(alpha=0.3, axis="x")
        axis.legend(fontsize=8)


def _fitting_and_fast(row: RunRow) -> tuple[bool, float]:
    """Order settings: those that fit first, then by their days."""
    return row.verdict != "fits", row.run_days or 0.0


def _bar(axis: Any, at: float, row: RunRow, place: int, label: str | None) -> None:
    """Draw one setting's days."""
    fits = row.verdict == "fits"
    bar = axis.barh(
        at,
        row.run_days,
        0.36,
        color=f"C{place}" if fits else "none",
        edgecolor=f"C{place}",
        hatch=None if fits else "///",
        label=label,
    )
    note = f"{row.run_days:,.0f} days" + ("" if fits else f" ({row.verdict})")
    axis.bar_label(bar, [note], fontsize=7, padding=3)


def _draw_memory(result: dict[str, Any], path: Path) -> None:
    """Draw plans against length; usable memory as lines, the lengths of tasks as bands."""
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
    with picture(path, 1, len(models), figsize=(6.5 * len(models), 5), squeeze=False) as axes:
        for axis, model in zip(axes[0], models, strict=True):
            top = _plans(axis, result, device, model, batch)
            _usable_lines(axis, usable, 1.3 * top)
            axis.axvline(
                paper.RELEASED_MODELS_SECONDS,
                color="tab:purple",
                linestyle=":",
                label=f"released models: over {paper.RELEASED_MODELS_SECONDS:g} s",
            )
            axis.axvspan(*paper.KEYWORD_SECONDS, color="tab:green", alpha=0.12, label="keyword spotting")
            axis.set(
                xlabel="seconds of each utterance",
                ylabel="GB, compiler's plan",
                title=f"{model}, batch {batch}, plan for {title}; lines: usable",
                ylim=(0, max(1.3 * top, 1)),
            )
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8, loc="upper left")


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
                label = f"{precision}, {method}"
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
    for place, (level, names) in enumerate(sorted(levels.items())):
        if level >= below:
            continue
        axis.axhline(level, color="gray", linewidth=1)
        # Neighbours take turns, so that the names of close lines do not overlap.
        at, side = ((1.0, "right"), (0.5, "center"))[place % 2]
        axis.text(
            at,
            level,
            ", ".join(names),
            fontsize=7,
            ha=side,
            va="bottom",
            transform=axis.get_yaxis_transform(),
        )
