"""Finding the file that a table means: releases and file systems spell names differently."""

import unicodedata
from collections.abc import Iterable

AUDIO_SUFFIXES = (".mp3", ".wav", ".flac", ".ogg", ".opus")


class ClipNames:
    """The files of `clips/` by the names that tables may have for them."""

    def __init__(self, names: Iterable[str]):
        self._names = frozenset(names)
        self._composed: dict[str, str] | None = None

    def find(self, path: str) -> tuple[str, str] | None:
        """Find a file.

        Returns:
            Its name and what differs from the table's ("" if nothing), or None where there is no such file.
        """
        if path in self._names:
            return path, ""
        if self._composed is None:
            # Mac file systems decompose accented letters.
            self._composed = {_composed(name): name for name in sorted(self._names)}
        wanted = _composed(path)
        if found := self._composed.get(wanted):
            return found, "the same letters, composed otherwise"
        stem, dot, suffix = wanted.rpartition(".")
        if not dot or f".{suffix.lower()}" not in AUDIO_SUFFIXES:
            stem, what = wanted, "the table has no suffix"  # releases before 2020
        else:
            what = "another suffix"
        there = [
            self._composed[stem + suffix] for suffix in AUDIO_SUFFIXES if stem + suffix in self._composed
        ]
        return (there[0], what) if len(there) == 1 else None

    def near(self, path: str) -> str | None:
        """A file whose name differs in case or blanks alone."""
        wanted = _folded(path)
        return next((name for name in sorted(self._names) if _folded(name) == wanted), None)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())
