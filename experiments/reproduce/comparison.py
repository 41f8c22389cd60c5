"""A table or a figure of the paper as it is reproduced: its command, and its values beside ours."""

import dataclasses
from collections.abc import Callable
from typing import Any

Value = float | str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One value of the paper beside ours.

    Attributes:
        what: it is, with its unit.
        paper, ours: numbers, or words where the paper has words or prints none.
        digits: behind the point.
        verdict: of words that are compared, or of numbers whose quotient says nothing; else it is worked out.
    """

    what: str
    paper: Value
    ours: Value
    digits: int = 2
    verdict: str | None = None

    def shown(self, value: Value) -> str:
        """A value as the table has it."""
        return value if isinstance(value, str) else f"{value:,.{self.digits}f}"

    @property
    def difference(self) -> str:
        """Ours over the paper's, less one; "as printed" where both are shown alike."""
        if self.verdict is not None:
            return self.verdict
        if self.shown(self.paper) == self.shown(self.ours):
            return "as printed"
        if isinstance(self.paper, str) or isinstance(self.ours, str):
            return "differs"
        return f"{self.ours / self.paper - 1:+.1%}"


@dataclasses.dataclass(frozen=True)
class Item:
    """A table, a figure or a section of the paper.

    Attributes:
        name: of its folder and of its JSON.
        title: for readers.
        words: of its command, without --out.
        product: the file that its command writes last.
        compare: its JSON -> values side by side.
        meaning: its JSON -> one paragraph.
        needs: what it takes beyond this checkout, where `reproduce all` does not run it by itself.
    """

    name: str
    title: str
    words: tuple[str, ...]
    product: str
    compare: Callable[[dict[str, Any]], list[Comparison]]
    meaning: Callable[[dict[str, Any]], str]
    needs: str | None = None
