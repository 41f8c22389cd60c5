"""Means, spreads and intervals of values by seed."""

from collections.abc import Sequence
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
    from scipy import stats  # takes a second to import

    found = [value for value in values if value is not None]
    if len(found) < 2:
        return None
    quantile = stats.t.ppf(1 - (1 - level) / (2 * comparisons), len(found) - 1)
    return float(quantile * np.std(found, ddof=1) / len(found) ** 0.5)


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
