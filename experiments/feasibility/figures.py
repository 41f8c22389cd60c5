"""The feasibility table for the eye: verdicts, time, memory."""

from pathlib import Path
from typing import Any

from experiments import paper
from experiments.feasibility.report import CRITERIA, shown_rows, shown_setting


def draw(result: dict[str, Any], folder: Path) -> list[str]:
    """verdicts.png, memory.png and time.png; their names."""
    import matplotlib

    matplotlib.use("Agg")
    _draw_verdicts(result, folder / "verdicts.png")
    _draw_time(result, folder / "time.png")
    _draw_memory(result, folder / "memory.png")
    return ["verdicts.png", "time.png", "memory.png"]


def _draw_verdicts(result: dict[str, Any], path: Path) -> None:
    """Each device's ratios against the line that they must reach."""
    import matplotlib.pyplot as plt

    rows = result["verdicts"]
    figure, axis = plt.subplots(figsize=(10, 1.6 + 0.4 * len(rows)), layout="constrained")
    for place, (name, label) in enumerate(CRITERIA.items()):
        known = [(row[name], index) for index, row in enumerate(rows) if row[name] is not None]
        if known:
            ratios, at = zip(*known, strict=True)
            spread = [index + (place - 2) * 0.13 for index in at]
            axis.scatter(ratios, spread, label=label, color=f"C{place}", s=36, zorder=3)
    axis.axvline(1.0, color="red", linewidth=1.5, label="there: the A40's, or what it takes")
    axis.axvspan(1.0, max(axis.get_xlim()[1], 10), color="tab:green", alpha=0.07)
    axis.set_yticks(range(len(rows)), [row["title"] for row in rows])
    axis.invert_yaxis()
    axis.set(
        xscale="log",
        xlabel="what there is over what it takes; no dot: unknown",
        title="Are we there yet? base, device by device",
    )
    axis.grid(alpha=0.3)
    figure.legend(fontsize=8, ncols=4, loc="outside lower center")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_time(result: dict[str, Any], path: Path) -> None:
    """Days of a whole run by device, the fastest setting; hollow where it does not fit."""
    import matplotlib.pyplot as plt

    batch, seconds = shown_setting(result)
    rows = [row for row in shown_rows(result) if row["run_days"] is not None]
    devices = list(dict.fromkeys(row["device"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axis = plt.subplots(figsize=(10, 1.6 + 0.45 * max(len(devices), 1)), layout="constrained")
    for place, model in enumerate(models):
        for at, device in enumerate(devices):
            own = [row for row in rows if (row["device"], row["model"]) == (device, model)]
            best = min(own, key=lambda row: (row["verdict"] != "fits", row["run_days"]), default=None)
            if best is None:
                continue
            fits = best["verdict"] == "fits"
            bar = axis.barh(
                at + (place - (len(models) - 1) / 2) * 0.38,
                best["run_days"],
                0.36,
                color=f"C{place}" if fits else "none",
                edgecolor=f"C{place}",
                hatch=None if fits else "///",
                label=model if at == 0 else None,
            )
            note = f"{best['run_days']:,.0f} days" + ("" if fits else f" ({best['verdict']})")
            axis.bar_label(bar, [note], fontsize=7, padding=3)
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
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_memory(result: dict[str, Any], path: Path) -> None:
    """Plans against length, what devices can use as lines, the tasks' lengths as bands."""
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(row["model"] for row in result["rows"]))
    batch, _ = shown_setting(result)
    figure, axes = plt.subplots(
        1, len(models), figsize=(6.5 * len(models), 5), layout="constrained", squeeze=False
    )
    usable = {
        name: held["usable_bytes"]
        for name, held in result["devices"].items()
        if held["usable_bytes"] is not None
    }
    for axis, model in zip(axes[0], models, strict=True):
        top = 0.0
        boards = [name for name in ("xavier-nx", "orin-nx", "rpi-4", *usable) if name in usable]
        device = boards[0] if boards else None
        for method, style in (("plain", "-"), ("remat", "--"), ("exact", ":")):
            for precision, colour in (("fp32", "tab:blue"), ("mixed", "tab:orange")):
                points = sorted(
                    (row["seconds"], row["plan_bytes"] / 1e9)
                    for row in result["rows"]
                    if (row["device"], row["model"], row["method"], row["precision"], row["batch"])
                    == (device, model, method, precision, batch)
                    and row["plan_bytes"] is not None
                )
                if points:
                    axis.plot(
                        *zip(*points, strict=True),
                        style,
                        color=colour,
                        marker="o",
                        markersize=3,
                        label=f"{precision}, {method}",
                    )
                    top = max(top, points[-1][1])
        levels: dict[float, list[str]] = {}
        for name, size in usable.items():
            levels.setdefault(round(size / 1e9, 1), []).append(name)
        for place, (level, names) in enumerate(sorted(levels.items())):
            if level < 1.3 * top:
                axis.axhline(level, color="gray", linewidth=1)
                # Neighbours take turns, so that close lines' names do not lie on one another.
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
        axis.axvline(
            paper.RELEASED_MODELS_SECONDS,
            color="tab:purple",
            linestyle=":",
            label=f"released models: over {paper.RELEASED_MODELS_SECONDS:g} s",
        )
        axis.axvspan(*paper.KEYWORD_SECONDS, color="tab:green", alpha=0.12, label="keyword spotting")
        title = result["devices"][device]["title"] if device else ""
        axis.set(
            xlabel="seconds of each utterance",
            ylabel="GB, compiler's plan",
            title=f"{model}, batch {batch}, plan for {title}; lines: usable",
            ylim=(0, max(1.3 * top, 1)),
        )
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
