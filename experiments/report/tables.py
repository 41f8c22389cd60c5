"""Markdown tables."""

from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Format a Markdown table; cells are shown as they are given, None as "-".

    A bar in a cell is escaped, so that it ends no cell.

    Args:
        head: column titles.
        rows: cells of each row, as many as there are titles.
    """
    cells = [["-" if cell is None else str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(cells, headers=list(head), tablefmt="pipe", disable_numparse=True)


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Format a Markdown table of two columns without titles: a name and its value."""
    return table(("", ""), pairs)
