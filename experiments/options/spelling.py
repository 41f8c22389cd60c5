"""Spell options and find the nearest right spelling of a word."""

import difflib
from collections.abc import Iterable, Sequence


def option_name(field: str) -> str:
    """How a field is spelt on the command line: crop_seconds is --crop-seconds."""
    return f"--{field.replace('_', '-')}"


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that was probably meant: alike but for case and a few letters, or the only one so begun."""
    spelt = {choice.lower(): choice for choice in choices}
    alike = difflib.get_close_matches(word.lower(), spelt, 1)
    longer = [choice for choice in spelt if word and choice.startswith(word.lower())]
    if alike:
        return spelt[alike[0]]
    return spelt[longer[0]] if len(longer) == 1 else None


def nearest(word: str, choices: Sequence[str], what: str) -> str:
    """An error text for an unknown choice, with the nearest right spelling first.

    Args:
        what: the option at fault, or what is chosen from.
    """
    close = closest(word, choices)
    hint = f": did you mean {close}?" if close else ""
    return f"unknown {what} '{word}'{hint} (choose from {', '.join(choices)})"
