"""Draw rounds.png: client steps a second of every runner."""

import textwrap
from pathlib import Path
from typing import Any

from experiments.bench.rounds.report import NAMES, counted, settings
from experiments.report.figures import PAGE_INCHES, SMALL_POINTS, message, picture


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw client steps a second by runner, a panel for each workload and K."""
    places = settings(result)
    columns = min(3, len(places))
    rows = -(-len(places) // columns)
    names = [name for name in NAMES if any(name in counted(result, *place) for place in places)]
    size = (PAGE_INCHES, 2.6 * rows + 0.9)
    with picture(path, rows, columns, figsize=size, squeeze=False, sharey=True) as axes:
        for axis in axes.flat[len(places) :]:
            axis.set_axis_off()
        for axis, (workload, clients) in zip(axes.flat, places, strict=False):
            found = counted(result, workload, clients)
            _bars(axis, [(names.index(name), name, row) for name, row in found.items()])
            axis.set(title=f"{workload}, {clients} clients", xlabel="client steps a second")
        wrapped = [textwrap.fill(NAMES[name], 24) for name in names]
        axes[0, 0].set_yticks(range(len(names)), wrapped)
        axes[0, 0].invert_yaxis()
        for axis in axes[:, 0]:
            axis.tick_params(axis="y", labelsize=SMALL_POINTS)
        message(
            axes[0, 0],
            f"{_range_sentence(result)}A bar is the median round of {result['repeats']} turns; its error bar "
            "is the 10th to the 90th percentile of rounds. No bar: the runner was left out, because it was "
            "not there or ended with other parameters.",
        )


def _bars(axis: Any, rows: list[tuple[int, str, dict[str, Any]]]) -> None:
    """Draw a bar for each (place, runner, row), this project's in blue."""
    for place, name, row in rows:
        speed = row["client_steps_per_second"]
        steps = speed * row["seconds_per_round"]
        errors = [[max(0, speed - steps / row["seconds_p90"])], [max(0, steps / row["seconds_p10"] - speed)]]
        colour = "tab:blue" if name == "ours" else "tab:gray"
        axis.barh(place, speed, color=colour, xerr=errors, error_kw={"elinewidth": 1, "capsize": 2})


def _range_sentence(result: dict[str, Any]) -> str:
    """Say how many times the steps of the best peer this project makes, over all settings."""
    ratios = []
    for workload, clients in settings(result):
        rows = counted(result, workload, clients)
        peers = [row for name, row in rows.items() if name not in ("ours", "sequential")]
        if "ours" in rows and peers:
            ratios.append(peers[0]["seconds_per_round"] / rows["ours"]["seconds_per_round"])
    if not ratios:
        return ""
    return f"This project makes {min(ratios):.2f} to {max(ratios):.2f} times the steps of the best peer. "
