"""Pieces of prose in Markdown: sentences as a list, values that changed, text behind a fold."""

from collections.abc import Callable, Iterable


def bullets(sentences: Iterable[str]) -> str:
    """Format sentences as a list; empty ones are left out."""
    return "\n".join(f"- {sentence}" for sentence in sentences if sentence)


def listed(parts: Iterable[str]) -> str:
    """Join words as in a sentence: "a, b and c"."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def from_to(first: float | None, last: float | None, form: Callable[[float], str]) -> str:
    """Format a change as "from 4.8 to 3.8"; None stands for a value that was not finite."""
    before, after = ("not finite" if value is None else form(value) for value in (first, last))
    return f"from {before} to {after}"


def fold(title: str, text: str) -> str:
    """Hide Markdown behind its title; a click opens it, on our pages and in viewers that show HTML."""
    return f"<details><summary>{title}</summary>\n\n{text.strip()}\n\n</details>"
