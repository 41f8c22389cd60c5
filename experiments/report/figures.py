"""Figures: one way to start matplotlib, and to save a picture."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DOTS_PER_INCH = 110


@contextlib.contextmanager
def picture(
    path: Path,
    rows: int = 1,
    columns: int = 1,
    *,
    mosaic: Sequence[Sequence[str]] | None = None,
    **settings: Any,
) -> Iterator[Any]:
    """Give the axes of a new figure, and save it as PNG at the end; nothing is saved after an error.

    Args:
        path: the PNG.
        rows: rows of axes.
        columns: columns of axes.
        mosaic: names of axes by row and column, in place of `rows` and `columns`; the axes are then a dict.
        settings: the settings of `matplotlib.pyplot.subplots`, as figsize in inches.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    settings["layout"] = "constrained"
    if mosaic is None:
        figure, axes = plt.subplots(rows, columns, **settings)
    else:
        figure, axes = plt.subplot_mosaic([list(row) for row in mosaic], **settings)
    try:
        yield axes
        figure.savefig(path, dpi=DOTS_PER_INCH)
    finally:
        plt.close(figure)


def count_axis(*axes: Any) -> None:
    """Put the ticks of x axes that count rounds, updates or the like on whole numbers."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
