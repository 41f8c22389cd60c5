"""Figures: one way to start matplotlib, to label lines and points, and to save a picture.

The checklist for figures is docs/reference/figures.md.
"""

import contextlib
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DOTS_PER_INCH = 110
PAGE_INCHES = 9.0  # the width of a figure whose letters stay readable on a page of 900 pixels
SMALL_POINTS = 8  # the smallest letters in a figure of that width
MESSAGE_POINTS = 9
LETTERS_PER_INCH = 14  # letters of MESSAGE_POINTS on an inch, on average


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


def message(axis: Any, text: str) -> None:
    """Write under a figure what it shows: the finding, n, and what its bars and bands are.

    Args:
        axis: any axes of the figure.
        text: paragraphs, one a line; they are wrapped to the width of the figure; `code` is put in quotes.
    """
    letters = int(axis.figure.get_figwidth() * LETTERS_PER_INCH)
    paragraphs = text.replace("`", '"').replace("**", "").split("\n")
    lines = [textwrap.fill(paragraph, letters, break_on_hyphens=False) for paragraph in paragraphs]
    axis.figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=MESSAGE_POINTS)


def label_ends(axis: Any) -> None:
    """Write the label of each line beside its last point, at the right of the axes, in place of a legend.

    Call it last, because limits and scales of the axes decide where the labels stand.
    """
    ends = []
    for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
        line = handle[0] if isinstance(handle, tuple) else handle
        known = [(x, y) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True) if y == y]
        if known:
            ends.append((known[-1][1], label, line.get_color()))
    _label_column(axis, [y for y, *_ in ends], [label for _, label, _ in ends], [end[2] for end in ends])


def label_points(
    axis: Any, points: Sequence[tuple[float, float]], labels: Sequence[str], colours: Sequence[Any]
) -> None:
    """Write the labels of points in a column at the right of the axes, each with a thin line to its point.

    Call it last, because limits and scales of the axes decide where the labels stand.
    """
    places = _label_column(axis, [y for _, y in points], labels, colours)
    for point, place, colour in zip(points, places, colours, strict=True):
        axis.annotate(
            "", point, (1.0, place), "data", "axes fraction",
            arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.35, "linewidth": 0.8, "shrinkA": 0},
        )  # fmt: skip


def _label_column(
    axis: Any, heights: Sequence[float], labels: Sequence[str], colours: Sequence[Any]
) -> list[float]:
    """Write labels at the right of the axes near heights in data units; return where, as axes fractions."""
    axis.get_ylim()  # lets matplotlib choose the limits
    to_fraction = axis.transScale + axis.transLimits
    wanted = [float(to_fraction.transform((axis.get_xlim()[1], height))[1]) for height in heights]
    points_high = axis.get_window_extent().height / axis.figure.dpi * 72
    places = spread_apart(wanted, 1.25 * SMALL_POINTS / points_high)
    for place, label, colour in zip(places, labels, colours, strict=True):
        axis.text(
            1.01, place, label, color=colour, fontsize=SMALL_POINTS, va="center", transform=axis.transAxes
        )
    return places


def spread_apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Move places apart until neighbours have `gap` between them; their order stays.

    Args:
        wanted: places, in any order.
        gap: the least distance of two places, in their unit.

    Returns:
        The places in the order of `wanted`; a crowd stays centred on the mean of its wanted places.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    crowds: list[list[float]] = []  # the sum of the places of a crowd, less their own gaps, and its size
    for rank, index in enumerate(order):
        crowds.append([wanted[index] - rank * gap, 1])
        while len(crowds) > 1 and crowds[-2][0] / crowds[-2][1] > crowds[-1][0] / crowds[-1][1]:
            total, size = crowds.pop()
            crowds[-1][0] += total
            crowds[-1][1] += size
    starts = [total / size for total, size in crowds for _ in range(int(size))]
    places = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        places[index] = starts[rank] + rank * gap
    return places


def legend_above(axes: Sequence[Any], columns: int = 3) -> None:
    """Put one legend above the whole figure with the labels of all its axes, each once."""
    shown: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    axes[0].figure.legend(
        list(shown.values()),
        list(shown),
        loc="outside upper center",
        ncols=columns,
        fontsize=SMALL_POINTS + 1,
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Find the points that no other point beats in both coordinates, of which less is better.

    Returns:
        The indices of those points, by their first coordinate.
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: points[index]):
        if not front or points[index][1] < points[front[-1]][1]:
            front.append(index)
    return front
