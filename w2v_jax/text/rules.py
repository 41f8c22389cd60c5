"""Normalise transcripts: letter case, accents, apostrophes, quotation marks."""

import dataclasses
import re
import unicodedata
from typing import Literal

APOSTROPHES = "'’‘‛ʼ`´′＇"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextRules:
    """What `normalise` keeps apart; "fold" makes è an e, and an apostrophe a space."""

    accents: Literal["keep", "fold"] = "keep"
    apostrophes: Literal["keep", "fold"] = "keep"


def normalise(text: str, rules: TextRules) -> str:
    """Lower-case words of letters, marks and digits with single spaces between them; idempotent.

    The text becomes NFC and lower case, and every apostrophe-like character an apostrophe. Other
    punctuation and symbols become spaces. Apostrophes that are next to no letter are quotation marks and
    go, as do doubled ones at the edge of a word. Invisible format characters (soft hyphens, joiners)
    and marks that stand on no letter or digit go without leaving a space.
    """
    visible = "".join(char for char in text if not _is_invisible(char))
    lowered = unicodedata.normalize("NFC", unicodedata.normalize("NFC", visible).lower())
    if rules.accents == "fold":
        lowered = _without_accents(lowered)
    spaced = _only_words(lowered)
    if rules.apostrophes == "fold":
        spaced = spaced.replace("'", " ")
    return " ".join(_without_quotation_marks(spaced).split())


def _is_invisible(char: str) -> bool:
    return unicodedata.category(char) == "Cf" or 0xFE00 <= ord(char) <= 0xFE0F  # variation selectors


def _without_accents(text: str) -> str:
    """Drop what combines (vowel signs of Indic scripts do not), and compose the rest again."""
    decomposed = unicodedata.normalize("NFD", text)
    return unicodedata.normalize(
        "NFC", "".join(char for char in decomposed if not unicodedata.combining(char))
    )


def _only_words(text: str) -> str:
    """Letters, digits and the marks on them, apostrophes as ', and a space for anything else."""
    kept: list[str] = []
    carries_marks = False
    for char in text:
        kind = unicodedata.category(char)[0]
        if char in APOSTROPHES:  # before the category: ʼ is a letter to Unicode
            kept.append("'")
            carries_marks = False
        elif kind == "M":
            if carries_marks:
                kept.append(char)
        else:
            carries_marks = kind in "LN"
            kept.append(char if carries_marks else " ")
    return "".join(kept)


def _without_quotation_marks(text: str) -> str:
    """A space for apostrophes that are next to no letter, and for doubled ones unless inside a word."""

    def replacement(run: re.Match[str]) -> str:
        before, after = text[: run.start()][-1:], text[run.end() :][:1]
        letters = [bool(char) and unicodedata.category(char)[0] in "LM" for char in (before, after)]
        is_apostrophe = all(letters) or (any(letters) and len(run[0]) == 1)
        return "'" if is_apostrophe else " "

    return re.sub("'+", replacement, text)
