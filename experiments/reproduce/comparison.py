"""A table or a figure of the paper as it is reproduced: its command, and its values beside ours."""

import dataclasses
from collections.abc import Callable
from typing import Any

Value = float | str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A value of the paper beside ours.

    Attributes:
        what: name of the value, with its unit.
        paper, ours: numbers, or words where the paper has words or prints nothing.
        digits: decimals that are shown.
        verdict: words in place of the difference, where words are compared or a quotient would mislead.
    """

    what: str
    paper: Value
    ours: Value
    digits: int = 2
    verdict: str | None = None

    def shown(self, value: Value) -> str:
        """Format a value as the table shows it."""
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

    @property
    def agrees(self) -> bool:
        """Tell whether the value comes out as printed, or the paper's words hold."""
        return self.difference in ("as printed", "agrees")

    @property
    def relative_error(self) -> float | None:
        """Distance from the paper's value as a share of it; None unless two numbers are compared."""
        if isinstance(self.paper, str) or isinstance(self.ours, str) or self.verdict is not None:
            return None
        return abs(self.ours / self.paper - 1)


@dataclasses.dataclass(frozen=True)
class Item:
    """A table, a figure or a section of the paper.

    Attributes:
        name: name of its folder, of its JSON and of its Markdown, which its command writes last.
        title: for readers.
        words: the words of its command, without --out.
        compare: makes the values side by side from its JSON.
        meaning: makes one paragraph from its JSON.
        needs: what it takes beyond this checkout, where `reproduce all` does not run it by itself.
    """

    name: str
    title: str
    words: tuple[str, ...]
    compare: Callable[[dict[str, Any]], list[Comparison]]
    meaning: Callable[[dict[str, Any]], str]
    needs: str | None = None
