"""Means, spreads and intervals of values by seed, and what they show."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np


def over_seeds(values: Sequence[float | None]) -> dict[str, Any]:
    """Summarise values by seed.

    Args:
        values: one value a seed; None where a seed has none.

    Returns:
        `mean`, `spread` (standard deviation, n - 1; None for fewer than two values) and `by_seed`, the values
        in the order of seeds.
    """
    found = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(found)) if found else None,
        "spread": float(np.std(found, ddof=1)) if len(found) > 1 else None,
        "by_seed": list(values),
    }


def interval(values: Sequence[float | None], comparisons: int = 1, level: float = 0.95) -> float | None:
    """Compute the half width of Student's t interval of a mean.

    Args:
        values: one value a seed; None where a seed has none.
        comparisons: intervals that are read together; the level is corrected for them (Bonferroni).
        level: probability that all of these intervals hold their means.

    Returns:
        The half width in the unit of the values; None for fewer than two values.
    """
    found = [value for value in values if value is not None]
    if len(found) < 2:
        return None
    return spreads_needed(len(found), comparisons, level) * float(np.std(found, ddof=1))


def spreads_needed(values: int, comparisons: int = 1, level: float = 0.95) -> float:
    """Compute the half width of Student's t interval of a mean, in standard deviations of its values.

    Args:
        values: how many there are, at least 2.
        comparisons, level: as in `interval`.
    """
    from scipy import stats  # takes a second to import

    return float(stats.t.ppf(1 - (1 - level) / (2 * comparisons), values - 1)) / values**0.5


def shown_sign(values: Sequence[float | None], comparisons: int) -> int:
    """Find the sign of a mean that differs from zero.

    Args:
        values: one value a seed; None where a seed has none.
        comparisons: as in `interval`.

    Returns:
        -1 or 1 where the interval leaves zero out, 0 where it holds zero or where there is no interval.
    """
    half = interval(values, comparisons)
    mean = over_seeds(values)["mean"]
    return 0 if half is None or abs(mean) <= half else int(math.copysign(1, mean))


def differs(difference: float, standard_error: float, comparisons: int = 1, level: float = 0.95) -> bool:
    """Tell whether a difference is larger than its standard error explains, by the normal distribution.

    Args:
        difference: the difference of two estimates, in any unit.
        standard_error: its standard error, in its unit; nothing differs where it is not a number.
        comparisons, level: as in `interval`.
    """
    quantile = NormalDist().inv_cdf(1 - (1 - level) / (2 * comparisons))
    return abs(difference) > quantile * standard_error


def ratio_if_different(value: float, reference: float, standard_error: float) -> float | None:
    """Divide `value` by `reference`; None where they do not differ, or where the reference is not positive.

    Args:
        value, reference: two estimates, such as an accuracy and the accuracy of its control.
        standard_error: the standard error of their difference.
    """
    return value / reference if reference > 0 and differs(value - reference, standard_error) else None


def mean_spread(values: Sequence[float | None], digits: int, scale: float = 1.0) -> str:
    """Format mean ± standard deviation of values by seed, "-" where there are none."""
    found = over_seeds([None if value is None else scale * value for value in values])
    if found["mean"] is None:
        return "-"
    spread = "" if found["spread"] is None else f" ± {found['spread']:.{digits}f}"
    return f"{found['mean']:.{digits}f}{spread}"


def signed(found: dict[str, Any], digits: int, scale: float = 1.0) -> str:
    """Format a difference over seeds, as `over_seeds` gives it, with its sign and spread."""
    if found["mean"] is None:
        return "-"
    spread = "" if found["spread"] is None else f" ± {scale * found['spread']:.{digits}f}"
    return f"{scale * found['mean']:+.{digits}f}{spread}"


def minus(one: float | None, other: float | None) -> float | None:
    """Subtract `other` from `one`; None where either is None."""
    return None if one is None or other is None else one - other
