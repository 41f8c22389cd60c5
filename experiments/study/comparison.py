"""Differences between two arms of a study, paired by seed and by test speaker, and what they show."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.probe.metrics import ACCURACY, Metric
from experiments.report.statistics import interval, over_seeds
from experiments.report.units import percent


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


def decided(found: Mapping[str, Any]) -> bool:
    """Tell whether the interval of a difference leaves zero out; one seed decides nothing."""
    return found["half"] is not None and abs(found["mean"]) > found["half"]


def leader(arms: Sequence[Mapping[str, Any]], baseline: str, metric: Metric = ACCURACY) -> str:
    """Say in a sentence which arm has the best mean score, and what the baseline has, or else the next arm.

    Args:
        arms: each with its name, `arm`, and the `mean` of its scores.
        baseline: the name of an arm.
        metric: the score.
    """
    best, *others = sorted(arms, key=lambda held: held["mean"], reverse=not metric.lower_is_better)
    other = next((held for held in others if held["arm"] == baseline), others[0])
    which = "lowest" if metric.lower_is_better else "highest"
    return (
        f"{best['arm']} has the {which} mean {metric.name}, {percent(best['mean'], 1)}; "
        f"{other['arm']} has {percent(other['mean'], 1)}."
    )


def dots_and_bars(seeds: int) -> str:
    """Say in a sentence what dots and bars of a picture over seeds are."""
    if seeds == 1:
        return "A dot is one seed, so that there are no error bars."
    return f"A dot is the mean over {seeds} seeds, its bar the 95 % t interval of that mean."


def sentence(one: str, other: str, found: Mapping[str, Any], metric: Metric = ACCURACY) -> str:
    """Say in a sentence what a difference of scores shows."""
    told = f"{points(found)} points"
    if found["half"] is None:
        return f"{one} against {other}: {told}, one seed alone."
    if not decided(found):
        return f"{one} against {other}: undecided ({told})."
    verdict = metric.better if metric.improves(found["mean"]) else metric.worse
    return f"{one} {verdict} {other}: {told}."
