"""Draw a curve in a line of text, as wide as there is room."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.text import Text

LEVELS = "▁▂▃▄▅▆▇█"
ASCII_LEVELS = "_.-=+*#@"
WIDEST = 40  # characters


@dataclasses.dataclass(frozen=True)
class Sparkline:
    """A rich renderable: values in order, the lowest at the bottom; means of neighbours if too many."""

    values: Sequence[float]
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Text]:
        levels = ASCII_LEVELS if options.ascii_only else LEVELS
        yield Text(drawn(self.values, min(options.max_width, WIDEST), levels), self.style, no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widest = max(1, min(len(self.values), WIDEST, options.max_width))
        return Measurement(min(8, widest), widest)


def drawn(values: Sequence[float], width: int, levels: str = LEVELS) -> str:
    """Draw finite values as one character each; more than `width` values as `width` means of neighbours."""
    if len(values) > width:
        bounds = [index * len(values) // width for index in range(width + 1)]
        values = [sum(values[i:j]) / (j - i) for i, j in itertools.pairwise(bounds)]
    if not values:
        return ""
    low, span = min(values), max(values) - min(values)
    if not span:
        return levels[len(levels) // 2] * len(values)
    return "".join(levels[round((value - low) / span * (len(levels) - 1))] for value in values)
