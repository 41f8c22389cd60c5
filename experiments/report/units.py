"""Numbers with their units, for readers: one rule for each quantity."""

from collections.abc import Mapping

import humanize

from experiments.process.progress import duration

__all__ = ["by_reason", "byte_size", "duration", "gigabytes", "number", "percent"]

GIGA = 1e9
UNKNOWN = "unknown"


def gigabytes(size_bytes: float | None, digits: int = 2, unknown: str = "-") -> str:
    """Format bytes as GB (1e9 bytes) with `digits` decimals, `unknown` if None."""
    return unknown if size_bytes is None else f"{size_bytes / GIGA:.{digits}f}"


def byte_size(size_bytes: float) -> str:
    """Format bytes with the unit that fits, decimal: 12.3 MB, 1.2 GB."""
    return humanize.naturalsize(size_bytes, format="%.1f")


def by_reason(counts: Mapping[str, int], none: str = "") -> str:
    """Format counts by reason: "3 missing, 1 silent"; `none` where there are none."""
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or none


def number(value: float | None, unknown: str = UNKNOWN) -> str:
    """Format a number with three significant digits, as a whole number from a hundred on."""
    if value is None:
        return unknown
    return humanize.intcomma(round(value)) if value >= 100 else f"{value:.3g}"


def percent(share: float | None, digits: int = 0, unknown: str = "-") -> str:
    """Format a share as a percentage: 0.25 as 25 %."""
    return unknown if share is None else f"{100 * share:.{digits}f} %"
