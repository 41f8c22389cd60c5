"""Normalise transcripts: letter case, accents, apostrophes, quotation marks, marks inside of words."""

import dataclasses
import re
import unicodedata
from typing import Literal

APOSTROPHES = "'’‘‛ʼ`´′＇׳"  # the last is the Hebrew geresh
MIDDLE_DOT, GERSHAYIM = "·", "״"
DOTS, DOUBLE_QUOTES = "·‧•∙⋅", '״"“”„'
ARMENIAN_TONES = "՛՜՞"  # stress, exclamation and question marks, which stand inside of words
# Languages in which I is the capital of ı, and İ that of i.
DOTLESS = ("tr", "az", "crh", "tt", "ba", "gag")
# Ligatures and letters of another width: Latin ones, and Unicode's presentation forms. Letters that Unicode
# merely spells with others (Thai ำ, Armenian և) are none.
LIGATURES = re.compile("[ĲĳĿŀŉſǄ-ǌǱ-ǳﬀ-ﷻﹰ-ﻼ！-ￜ]")
# Words that begin or end with an apostrophe for a sound that is not spoken: 'sto, po'.
ELIDED_STARTS = {
    "n",
    "na",
    "no",
    "nu",
    "sta",
    "ste",
    "sti",
    "sto",
    "em",
    "tis",
    "twas",
    "til",
    "cause",
    "s",
    "t",
}
ELIDED_ENDS = {"po", "mo", "be", "di", "fa", "da", "va", "sta", "to", "ca", "n", "o", "ol"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextRules:
    """Rules of `normalise`.

    Attributes:
        accents: "fold" writes è as e.
        apostrophes: "fold" writes an apostrophe as a space.
        language: code as Common Voice writes it (tr, az, ca, sv-SE), or empty. Turkish, Azerbaijani and other
            languages with a dotless ı have letter case of their own.
    """

    accents: Literal["keep", "fold"] = "keep"
    apostrophes: Literal["keep", "fold"] = "keep"
    language: str = ""


def normalise(text: str, rules: TextRules) -> str:
    """Write text as lower-case words with single spaces between them; normalising again changes nothing.

    Words hold letters, marks and digits. The text becomes NFC and lower case, ligatures become their letters,
    and every character that looks like an apostrophe becomes one. A middle dot inside l·l, n·h and s·h
    and gershayim between Hebrew letters stay; other punctuation and symbols become spaces. Apostrophes that
    are next to no letter are quotation marks and go, as do doubled ones at the edge of a word and pairs
    around words.
    Invisible format characters (soft hyphens, joiners) and marks that stand on no letter or digit go without
    leaving a space.
    """
    while (once := _normalise_once(text, rules)) != text:  # what goes may make neighbours of apostrophes
        text = once
    return text


def _normalise_once(text: str, rules: TextRules) -> str:
    visible = "".join(_without_ligature(char) for char in text if not _is_invisible(char))
    lowered = _lower(unicodedata.normalize("NFC", visible), rules.language)
    if rules.accents == "fold":
        lowered = _without_accents(lowered)
    marked = re.sub(f"[{APOSTROPHES}]", "'", _with_inner_marks(lowered))
    spaced = _only_words(_without_quoting_pairs(marked))
    if rules.apostrophes == "fold":
        spaced = spaced.replace("'", " ")
    return " ".join(_without_quotation_marks(spaced).split())


def _is_invisible(char: str) -> bool:
    variation_selector = 0xFE00 <= ord(char) <= 0xFE0F
    return unicodedata.category(char) == "Cf" or variation_selector or char in ARMENIAN_TONES


def _without_ligature(char: str) -> str:
    """Spell a ligature or a letter of another width with its letters: ﬁ as fi."""
    if LIGATURES.match(char) and unicodedata.category(char)[0] == "L":
        return unicodedata.normalize("NFKC", char)
    return char


def _lower(text: str, language: str) -> str:
    """Lower case of NFC text; without the dot that Unicode leaves on the i of İ, which is no letter."""
    if language.split("-")[0].lower() in DOTLESS:
        text = text.replace("I", "ı")
    lowered = text.replace("İ", "i").lower().replace("i\u0307", "i")
    return unicodedata.normalize("NFC", lowered)


def _without_accents(text: str) -> str:
    """Drop what combines (vowel signs of Indic scripts do not), and compose the rest again."""
    decomposed = unicodedata.normalize("NFD", text)
    return unicodedata.normalize(
        "NFC", "".join(char for char in decomposed if not unicodedata.combining(char))
    )


def _with_inner_marks(text: str) -> str:
    """Write the dot of l·l, n·h and s·h (Occitan) and the double mark between Hebrew letters in one way."""
    text = re.sub(f"(?<=l)[{DOTS}](?=l)|(?<=[ns])[{DOTS}](?=h)", MIDDLE_DOT, text)
    return re.sub(f"(?<=[א-ת])[{DOUBLE_QUOTES}](?=[א-ת])", GERSHAYIM, text)


def _only_words(text: str) -> str:
    """Keep letters, digits, the marks on and inside of them, apostrophes as '; a space for anything else."""
    kept: list[str] = []
    carries_marks = False
    for place, char in enumerate(text):
        kind = unicodedata.category(char)[0]
        if char == "'":
            kept.append(char)
            carries_marks = False
        elif kind == "M":
            if carries_marks:
                kept.append(char)
        else:
            carries_marks = kind in "LN"
            kept.append(char if carries_marks or _is_inner_mark(text, place) else " ")
    return "".join(kept)


def _is_inner_mark(text: str, place: int) -> bool:
    around = text[max(place - 1, 0) : place + 2]
    return bool(re.fullmatch(f"l{MIDDLE_DOT}l|[ns]{MIDDLE_DOT}h|[א-ת]{GERSHAYIM}[א-ת]", around))


def _without_quotation_marks(text: str) -> str:
    """Put a space for apostrophes that are next to no letter, and for doubled ones unless inside a word."""

    def replacement(run: re.Match[str]) -> str:
        before, after = text[: run.start()][-1:], text[run.end() :][:1]
        letters = [bool(char) and unicodedata.category(char)[0] in "LM" for char in (before, after)]
        is_apostrophe = all(letters) or (any(letters) and len(run[0]) == 1)
        return "'" if is_apostrophe else " "

    return re.sub("'+", replacement, text)


def _without_quoting_pairs(text: str) -> str:
    """Drop the apostrophes around quoted words, 'buon giorno', and keep those of elided ones, 'sto and po'.

    A pair begins before a word and ends after the same or a later one. It is no pair around a single letter
    (rock 'n' roll), or where its first or last word is known to be elided.
    """
    dropped, opening = set[int](), None
    for mark in re.finditer("'", text):
        place = mark.start()
        before, after = text[:place], text[place + 1 :]
        if re.match(r"\w", after) and not re.search(r"[\w']$", before):
            if _word_at(after) not in ELIDED_STARTS:
                opening = place
        elif opening is not None and not re.match(r"[\w']", after) and re.search(r"[^\s']$", before):
            quoted = before[opening + 1 :]
            if re.split(r"\W", quoted)[-1] in ELIDED_ENDS and " " in quoted:
                continue
            if len(quoted) > 1:
                dropped |= {opening, place}
            opening = None
    return "".join(char for place, char in enumerate(text) if place not in dropped)


def _word_at(text: str) -> str:
    """The word that a text begins with."""
    return re.split(r"\W", text, maxsplit=1)[0]
