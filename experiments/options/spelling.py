"""Spell options and find the nearest right spelling of a word."""

import difflib
from collections.abc import Iterable, Sequence

# Fields whose options have other names: a setting keeps its name in files, and a tuple its plural.
NAMES = {
    "batch_size": "batch",
    "crop_seconds": "seconds",
    "targets": "target",
    "devices": "device",
    "models": "model",
    "population": "clients",
    "cohorts": "clients_per_round",
}


def dashed(field: str) -> str:
    """Spell a field as it is: crop_seconds is --crop-seconds."""
    return f"--{field.replace('_', '-')}"


def option_name(field: str) -> str:
    """Spell a field as on the command line: learning_rate is --learning-rate, batch_size is --batch."""
    return dashed(NAMES.get(field, field))


def closest(word: str, choices: Iterable[str]) -> str | None:
    """Find the choice that was meant: it differs by case or a few letters, or alone begins so."""
    spelt = {choice.lower(): choice for choice in choices}
    alike = difflib.get_close_matches(word.lower(), spelt, 1)
    longer = [choice for choice in spelt if word and choice.startswith(word.lower())]
    if alike:
        return spelt[alike[0]]
    return spelt[longer[0]] if len(longer) == 1 else None


def nearest(word: str, choices: Sequence[str], what: str) -> str:
    """Make the error text for an unknown choice, with the nearest choice first.

    Args:
        what: the option at fault, or the kind of thing that is chosen.
    """
    close = closest(word, choices)
    hint = f": did you mean {close}?" if close else ""
    return f"unknown {what} '{word}'{hint} (choose from {', '.join(choices)})"
