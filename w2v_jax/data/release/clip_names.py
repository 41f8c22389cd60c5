"""Find the file that a table means: releases and file systems spell names differently."""

import functools
import unicodedata
from collections.abc import Iterable

AUDIO_SUFFIXES = (".mp3", ".wav", ".flac", ".ogg", ".opus")  # in any case


class ClipNames:
    """The files of `clips/` by the names that tables may have for them."""

    def __init__(self, names: Iterable[str]):
        self._names = frozenset(names)

    @functools.cached_property
    def _by_spelling(self) -> dict[str, str]:
        # Mac file systems decompose accented letters.
        return {_composed(name): name for name in sorted(self._names)}

    @functools.cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        """Group the audio files by their names without the suffix."""
        found: dict[str, list[str]] = {}
        for composed, name in self._by_spelling.items():
            stem, is_audio = _stem(composed)
            if is_audio:
                found.setdefault(stem, []).append(name)
        return found

    @functools.cached_property
    def _by_folded(self) -> dict[str, str]:
        """Find files by their names with and without the suffix, in any case and without blanks."""
        by_name = {_folded(name): name for name in sorted(self._names, reverse=True)}
        return {_folded(stem): names[0] for stem, names in self._by_stem.items()} | by_name

    def find(self, path: str) -> tuple[str, str] | None:
        """Find a file.

        Returns:
            Its name and what differs from the table's ("" if nothing), or None where there is no such file.
        """
        if path in self._names:
            return path, ""
        wanted = _composed(path)
        if found := self._by_spelling.get(wanted):
            return found, "the same letters, composed otherwise"
        stem, is_audio = _stem(wanted)
        what = "another suffix" if is_audio else "the table has no suffix"  # releases before 2020
        there = self._by_stem.get(stem, [])
        return (there[0], what) if len(there) == 1 else None

    def near(self, path: str) -> str | None:
        """Find a file whose name differs in case, blanks or the suffix alone."""
        return self._by_folded.get(_folded(path)) or self._by_folded.get(_folded(_stem(_composed(path))[0]))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _stem(name: str) -> tuple[str, bool]:
    """Remove the suffix of audio, and tell whether there was one; other names stay whole."""
    stem, dot, suffix = name.rpartition(".")
    is_audio = bool(dot) and f".{suffix.lower()}" in AUDIO_SUFFIXES
    return (stem if is_audio else name), is_audio


def _folded(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())
