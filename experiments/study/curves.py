"""Labels, marks and verdicts of reports that compare arms over seeds."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from experiments.report.figures import SMALL_POINTS
from experiments.report.statistics import shown_sign, spreads_needed
from experiments.study.federated_scales import CENTRALISED, SCRATCH

Verdict = Literal["better", "worse", "no difference shown"]
NO_DIFFERENCE: Verdict = "no difference shown"


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
    """Say how many cores each run had."""
    counts = " or ".join(map(str, made["cores"]))
    return f"{counts} core{'' if counts == '1' else 's'} a run"


def label(arm: str) -> str:
    """Write the name of an arm for readers."""
    return (
        arm.replace("-clients-", " clients, ").replace("hundred", "100").replace("ten clients", "10 clients")
    )


def mended(result: dict[str, Any]) -> list[str]:
    """List what was mended in a kept record, one line each."""
    return [
        f"**Mended:** `{row['field']}` was recorded as {row['recorded']}; it is {row['mended']}. "
        f"{row['reason']}"
        for row in result.get("errata", [])
    ]


def band(axis: Any, runs: Sequence[dict[str, Any]], x: str, y: str, arm: str) -> None:
    """Draw the mean curve over seeds, and the range of the seeds."""
    xs = np.array(runs[0]["curve"][x], float)
    values = np.array([run["curve"][y] for run in runs], float)
    axis.plot(xs, values.mean(0), "o-", ms=3, color=COLOURS[arm], label=label(arm))
    axis.fill_between(xs, values.min(0), values.max(0), color=COLOURS[arm], alpha=0.2, lw=0)


def points(
    axis: Any, rows: dict[str, list[dict[str, Any]]], arms: Sequence[str], name: str, scale: float = 100.0
) -> None:
    """Draw a dot for each seed and a bar at the mean, an arm a row; the first arm is on top."""
    for place, arm in enumerate(arms):
        values = [scale * row[name] for row in rows[arm]]
        axis.plot(values, [place] * len(values), "o", color=COLOURS[arm], alpha=0.7)
        axis.vlines(float(np.mean(values)), place - 0.3, place + 0.3, color=COLOURS[arm], lw=3)
    axis.set_yticks(range(len(arms)), [label(arm) for arm in arms], fontsize=SMALL_POINTS)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)


def errorbars(axis: Any, x: Sequence[float], rows: Sequence[Any], name: str, arm: str, scale: float) -> None:
    """Draw means over seeds against x, and the range of the seeds."""
    values = [np.array([row[name] for row in held], float) * scale for held in rows]
    means = np.array([held.mean() for held in values])
    low, high = [held.min() for held in values], [held.max() for held in values]
    axis.errorbar(
        x, means, yerr=[means - low, high - means], fmt="o-", capsize=3, color=COLOURS[arm], label=label(arm)
    )


def verdict(difference: dict[str, Any], comparisons: int) -> Verdict:
    """Judge a paired difference, of which lower is better, by Student's t interval over seeds.

    Args:
        difference: the difference of two arms over seeds, as `over_seeds` gives it.
        comparisons: differences that are judged together; the interval holds for all of them.
    """
    words: dict[int, Verdict] = {-1: "better", 0: NO_DIFFERENCE, 1: "worse"}
    return words[shown_sign(difference["by_seed"], comparisons)]


def direction(difference: dict[str, Any], comparisons: int) -> str:
    """Put a verdict in words, with the number of seeds in which the difference is negative."""
    values = [value for value in difference["by_seed"] if value is not None]
    lower = f"lower in {sum(value < 0 for value in values)} of {len(values)} seeds"
    if len(values) < 2:
        return f"{NO_DIFFERENCE}: one seed gives no interval"
    return f"{verdict(difference, comparisons)}, {lower}"


def judgement(seeds: int, comparisons: int) -> str:
    """Explain to readers how differences are judged."""
    if seeds < 2:
        return "One seed gives no interval: no difference can be shown."
    return (
        f"A difference is shown where Student's t interval of its mean over {seeds} seeds leaves zero out, "
        f"at 95 % for all {comparisons} comparisons of this report together (Bonferroni). For that the mean "
        f"has to be {spreads_needed(seeds, comparisons):.1f} times its standard deviation; for a single "
        f"comparison {spreads_needed(seeds):.1f} times would do. Everything else is called *{NO_DIFFERENCE}*."
    )


def shown_count(differences: Sequence[dict[str, Any]], comparisons: int) -> str:
    """Count the differences that are shown, read together and one by one, beside what chance gives."""
    together = sum(verdict(difference, comparisons) != NO_DIFFERENCE for difference in differences)
    alone = sum(verdict(difference, 1) != NO_DIFFERENCE for difference in differences)
    return (
        f"{together} of {len(differences)} differences are shown. Read one by one, {alone} would be; chance "
        f"alone would give about {0.05 * len(differences):.0f}."
    )
