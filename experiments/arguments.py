"""Command lines: tyro parses, and mistakes come out as one line with exit status 2."""

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import TypeVar

Arguments = TypeVar("Arguments")

_BOX = "╭╮╰╯│─"


class UsageError(Exception):
    """A mistake on the command line, in one line."""


def parse(kind: type[Arguments], argv: Sequence[str], program: str) -> Arguments:
    """Parse `argv` into a dataclass; `--help` prints and exits 0.

    Raises:
        UsageError: unknown option, bad value; the message names it and the nearest right spelling.
    """
    import tyro

    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(kind, args=list(argv), prog=program, use_underscores=False)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(one_line(printed.getvalue())) from None


def one_line(boxed: str) -> str:
    """The words of a boxed message up to its help footer, on one line."""
    words: list[str] = []
    for line in boxed.splitlines()[1:]:
        text = line.strip(_BOX + " ")
        if text.startswith(("For full helptext", "Argument helptext")):
            break
        words.append(text)
    return " ".join(" ".join(words).split()) or "bad command line"


def complain(message: str) -> None:
    """Print one line to standard error."""
    print(f"w2v-jax: error: {' '.join(message.split())}", file=sys.stderr)


def nearest(word: str, choices: Sequence[str], what: str) -> str:
    """An error text for an unknown choice, with the nearest right spelling first."""
    import difflib

    close = difflib.get_close_matches(word, choices, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown {what} '{word}': {hint}(choose from {', '.join(choices)})"
