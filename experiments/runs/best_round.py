"""The best round of a pre-training run, by a column of metrics.jsonl."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

Line = TypeVar("Line", bound=Mapping[str, Any])

Criterion = Literal["probe", "heldout_loss", "heldout_accuracy"]
BEST = "best"  # the folder of its checkpoint, and its name after RUN@
# Column by criterion, and 1 where more is better, -1 where less is.
COLUMNS: dict[Criterion, tuple[str, int]] = {
    "probe": ("probe_accuracy", 1),
    "heldout_loss": ("heldout_loss", -1),
    "heldout_accuracy": ("heldout_accuracy", 1),
}


def best_line(lines: Iterable[dict[str, Any]], criterion: Criterion) -> dict[str, Any] | None:
    """Find the line of the best round by a criterion; see `best_by_column`."""
    return best_by_column(lines, *COLUMNS[criterion])


def best_by_column(lines: Iterable[Line], column: str, sign: int) -> Line | None:
    """Find the line with the best value, the first of several; None where no line has a finite value.

    Args:
        lines: the lines of metrics.jsonl.
        column: the column whose value decides.
        sign: 1 where more is better, -1 where less is.
    """
    held = [line for line in lines if line.get(column) is not None and math.isfinite(line[column])]
    return max(held, key=lambda line: sign * line[column], default=None)
