"""Tables and marks of reports that compare arms over seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.study.federated import CENTRALISED, SCRATCH

COLOURS = {
    SCRATCH: "tab:gray",
    CENTRALISED: "black",
    "ten-clients-fedavg": "tab:blue",
    "ten-clients-loss-weighted": "tab:orange",
    "hundred-clients-fedavg": "tab:cyan",
    "hundred-clients-loss-weighted": "tab:red",
    "log-mel": "tab:green",
    "random": "tab:olive",
}


def cores_of(made: dict[str, Any]) -> str:
    """How many cores each run had."""
    counts = " or ".join(map(str, made["cores"]))
    return f"{counts} core{'' if counts == '1' else 's'} a run"


def label(arm: str) -> str:
    """An arm's name for readers."""
    return (
        arm.replace("-clients-", " clients, ").replace("hundred", "100").replace("ten clients", "10 clients")
    )


def band(axis: Any, runs: Sequence[dict[str, Any]], x: str, y: str, arm: str) -> None:
    """Mean curve over seeds, and the range of the seeds."""
    xs = np.array(runs[0]["curve"][x], float)
    values = np.array([run["curve"][y] for run in runs], float)
    axis.plot(xs, values.mean(0), "o-", ms=3, color=COLOURS[arm], label=label(arm))
    axis.fill_between(xs, values.min(0), values.max(0), color=COLOURS[arm], alpha=0.2, lw=0)


def points(
    axis: Any, rows: dict[str, list[dict[str, Any]]], arms: Sequence[str], name: str, scale: float = 100.0
) -> None:
    """A dot a seed and a bar at the mean, arm by arm."""
    for place, arm in enumerate(arms):
        values = [scale * row[name] for row in rows[arm]]
        axis.plot([place] * len(values), values, "o", color=COLOURS[arm], alpha=0.7)
        axis.hlines(float(np.mean(values)), place - 0.3, place + 0.3, color=COLOURS[arm], lw=3)
    axis.set_xticks(range(len(arms)), [label(arm).replace(", ", "\n") for arm in arms], fontsize=8)
    axis.grid(axis="y", alpha=0.3)


def errorbars(axis: Any, x: Sequence[float], rows: Sequence[Any], name: str, arm: str, scale: float) -> None:
    """Means over seeds against x, and the range of the seeds."""
    values = [np.array([row[name] for row in held], float) * scale for held in rows]
    means = np.array([held.mean() for held in values])
    low, high = [held.min() for held in values], [held.max() for held in values]
    axis.errorbar(
        x, means, yerr=[means - low, high - means], fmt="o-", capsize=3, color=COLOURS[arm], label=label(arm)
    )


def verdict(difference: dict[str, Any]) -> str:
    """better, worse or no, by a paired difference beyond its spread, of which a single seed has none."""
    values = [value for value in difference["by_seed"] if value is not None]
    if difference["spread"] is None or abs(difference["mean"]) <= difference["spread"]:
        return "no"
    if all(value < 0 for value in values):
        return "better"
    return "worse" if all(value > 0 for value in values) else "no"


def direction(difference: dict[str, Any]) -> str:
    """In words, with how many seeds agree."""
    values = [value for value in difference["by_seed"] if value is not None]
    lower = sum(value < 0 for value in values)
    if difference["spread"] is None:
        return f"one seed, which has no spread, lower in {lower} of {len(values)}"
    word = {
        "better": "better beyond the spread",
        "worse": "worse beyond the spread",
        "no": "within the spread, or seeds disagree",
    }
    return f"{word[verdict(difference)]}, lower in {lower} of {len(values)}"
