"""Differences between two arms of a study, paired by seed and by test speaker, and what they show."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.probe.metrics import ACCURACY, Metric
from experiments.report.statistics import interval, over_seeds


def paired(one: Sequence[float], other: Sequence[float], comparisons: int) -> dict[str, Any]:
    """Subtract the values of two arms pair by pair.

    Args:
        one, other: values by seed, in the same order.
        comparisons: intervals that are read together; theirs are corrected for them (Bonferroni).

    Returns:
        Mean, spread and differences as `over_seeds` gives them, and `half`, half of the 95 % t interval.
    """
    values = [a - b for a, b in zip(one, other, strict=True)]
    return over_seeds(values) | {"half": interval(values, comparisons)}


def by_speaker(
    one: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]], comparisons: int
) -> dict[str, Any]:
    """Subtract the values of two arms speaker by speaker, each averaged over the seeds first.

    Args:
        one, other: a mapping of test speakers to values for each seed.
        comparisons: as in `paired`.
    """
    mine, theirs = _averaged(one), _averaged(other)
    found = paired(list(mine.values()), [theirs[name] for name in mine], comparisons)
    return {"mean": found["mean"], "half": found["half"]}


def _averaged(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(held[name] for held in seeds) / len(seeds) for name in seeds[0]}


def points(found: Mapping[str, Any]) -> str:
    """Format a difference of shares in percentage points, with its interval."""
    if found["half"] is None:
        return f"{100 * found['mean']:+.1f}"
    return f"{100 * found['mean']:+.1f} ± {100 * found['half']:.1f}"


def sentence(one: str, other: str, found: Mapping[str, Any], metric: Metric = ACCURACY) -> str:
    """Say in a sentence what a difference of scores shows."""
    told = f"{points(found)} points"
    if found["half"] is None:
        return f"{one} against {other}: {told}, one seed alone."
    if abs(found["mean"]) <= found["half"]:
        return f"{one} against {other}: undecided ({told})."
    verdict = metric.better if metric.improves(found["mean"]) else metric.worse
    return f"{one} {verdict} {other}: {told}."
