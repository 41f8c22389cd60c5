"""Transcripts to token ids and back, for CTC: id 0 is the blank, which `encode` never gives."""

import dataclasses
import io
import json
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import sentencepiece

from w2v_jax.errors import UserError

BLANK = 0
APOSTROPHES = "'’‘‛ʼ`´′＇"
SETTINGS_FILE, MODEL_FILE = "tokenizer.json", "tokenizer.model"
PIECE_SPACE = "▁"  # how SentencePiece writes a space
# Results depend on how SentencePiece splits its sums over threads, so their number is fixed.
PIECE_THREADS = 4
LONGEST_SENTENCE_BYTES = 2**20  # SentencePiece silently skips longer ones


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


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back; text is what `normalise` gives."""

    @property
    def num_tokens(self) -> int:
        """How many ids there are, 0 to num_tokens - 1, the blank among them."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, none of them the blank.

        Raises:
            UserError: characters that no token stands for.
        """
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; skips blanks and does not merge repeats.

        Raises:
            UserError: an id outside 0 to num_tokens - 1.
        """
        ...

    def unknown(self, text: str) -> set[str]:
        """The characters of `text` that no token stands for."""
        ...


class CharacterTokenizer:
    """One token per character: id 1 is the first of the sorted `alphabet`."""

    def __init__(self, alphabet: str):
        """Sort the alphabet's distinct characters (in NFC).

        Raises:
            UserError: an empty alphabet.
        """
        if not alphabet:
            raise UserError("the alphabet is empty: give every character of the transcripts, the space too")
        self.alphabet = "".join(sorted(set(unicodedata.normalize("NFC", alphabet))))
        self._ids = {char: number for number, char in enumerate(self.alphabet, start=1)}

    @property
    def num_tokens(self) -> int:
        return len(self.alphabet) + 1

    def encode(self, text: str) -> list[int]:
        _refuse_unknown(
            self.unknown(text),
            "add them with --alphabet, or leave --alphabet out to take every character of the transcripts",
        )
        return [self._ids[char] for char in text]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.alphabet[number - 1] for number in _without_blanks(ids, self.num_tokens))

    def unknown(self, text: str) -> set[str]:
        return set(text) - self._ids.keys()


def train_characters(sentences: Iterable[str]) -> CharacterTokenizer:
    """A token for every character of `sentences`, and for the space."""
    return CharacterTokenizer("".join({" "}.union(*sentences)))


class PieceTokenizer:
    """The pieces of a SentencePiece model; the id of its unknown piece, 0, is the blank's."""

    def __init__(self, model: bytes):
        """Read a serialised model.

        Args:
            model: what `train_pieces` made, or another whose only special piece is the unknown one, at 0.

        Raises:
            UserError: not a SentencePiece model, or one with other special pieces.
        """
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except RuntimeError:
            raise UserError("not a SentencePiece model: give the bytes of a whole .model file") from None
        pieces = range(processor.GetPieceSize())
        special = [
            i for i in pieces if processor.IsControl(i) or processor.IsUnknown(i) or processor.IsByte(i)
        ]
        if special != [BLANK]:
            raise UserError(
                f"the SentencePiece model has special pieces at ids {special}: train it with unk_id=0 and no "
                "others (bos_id, eos_id and pad_id -1, no byte fallback)"
            )
        singles = {piece for i in pieces if i != BLANK and len(piece := processor.IdToPiece(i)) == 1}
        self.model = model
        self.alphabet = "".join(sorted({" " if char == PIECE_SPACE else char for char in singles}))
        self._processor = processor

    @property
    def num_tokens(self) -> int:
        return self._processor.GetPieceSize()

    def encode(self, text: str) -> list[int]:
        _refuse_unknown(self.unknown(text), "train the pieces on transcripts that have them")
        return self._processor.EncodeAsIds(text)

    def decode(self, ids: Iterable[int]) -> str:
        return self._processor.DecodeIds(_without_blanks(ids, self.num_tokens))

    def unknown(self, text: str) -> set[str]:
        return set(text).difference(self.alphabet)


class VocabularyTokenizer:
    """The tokens of a checkpoint from elsewhere, in its own order but for the blank, which is first here."""

    def __init__(self, tokens: list[str], ids: list[int], delimiter: str, silent: Iterable[str]):
        """Keep a vocabulary.

        Args:
            tokens: the blank's first.
            ids: what each was there.
            delimiter: stands for a space.
            silent: names of ids that have no token.
        """
        self.tokens, self.ids, self.delimiter = tokens, ids, delimiter
        self.silent = sorted(set(silent))
        shown = {" " if token == delimiter else token for token in tokens[1:] if token not in self.silent}
        self.alphabet = "".join(sorted(token for token in shown if len(token) == 1))
        self._ids = {" " if t == delimiter else t: number for number, t in enumerate(tokens) if number}

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        _refuse_unknown(self.unknown(text), "write them otherwise, or train a tokenizer of its own")
        return [self._ids[char if char in self.alphabet else char.upper()] for char in text]

    def decode(self, ids: Iterable[int]) -> str:
        named = [self.tokens[number] for number in _without_blanks(ids, self.num_tokens)]
        return "".join(" " if t == self.delimiter else t for t in named if t not in self.silent)

    def unknown(self, text: str) -> set[str]:
        return {char for char in text if not {char, char.upper()} & set(self.alphabet)}


def train_pieces(sentences: Iterable[str], num_tokens: int) -> PieceTokenizer:
    """Unigram pieces (SentencePiece) from `sentences`; the same ones every time.

    Args:
        sentences: normalised transcripts.
        num_tokens: how many ids there shall be, the blank among them.

    Raises:
        UserError: no text, fewer tokens than characters, or more than the text can give.
    """
    chosen = [sentence for sentence in sentences if sentence.strip()]
    if not chosen:
        raise UserError("no text to train pieces on: every transcript is empty")
    fewest = len(set("".join(chosen)) | {" "}) + 1
    if num_tokens < fewest:
        raise UserError(
            f"num_tokens={num_tokens} leaves characters without a token: the text has {fewest - 1}, "
            f"so give {fewest} or more"
        )
    writer = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(chosen),
            model_writer=writer,
            model_type="unigram",
            vocab_size=num_tokens,
            unk_id=BLANK,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            character_coverage=1.0,
            normalization_rule_name="identity",
            max_sentence_length=LONGEST_SENTENCE_BYTES,
            num_threads=PIECE_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        limit = re.search(r"value <= (\d+)", str(error))
        if limit is None:
            raise
        raise UserError(
            f"num_tokens={num_tokens} is more than the text can give: give {limit[1]} or fewer, "
            "or more transcripts"
        ) from None
    return PieceTokenizer(writer.getvalue())


def _without_blanks(ids: Iterable[int], num_tokens: int) -> list[int]:
    numbers = [int(number) for number in ids]
    outside = [number for number in numbers if not 0 <= number < num_tokens]
    if outside:
        raise UserError(
            f"no token has id {outside[0]}: this tokenizer's ids are 0 to {num_tokens - 1}; is it what "
            "the model was trained with?"
        )
    return [number for number in numbers if number != BLANK]


def _refuse_unknown(characters: set[str], advice: str) -> None:
    if characters:
        named = " ".join(repr(char) for char in sorted(characters))
        raise UserError(f"no token for the characters {named}: {advice}")


def save_tokenizer(folder: Path, tokenizer: Tokenizer, rules: TextRules) -> None:
    """Write tokenizer.json and, for pieces, tokenizer.model into `folder`, made if need be.

    Args:
        folder: a run's.
        tokenizer: one of this module's.
        rules: of the transcripts that it was trained on.

    Raises:
        TypeError: a tokenizer of another kind.
    """
    kinds = {CharacterTokenizer: "characters", PieceTokenizer: "pieces", VocabularyTokenizer: "vocabulary"}
    if not isinstance(tokenizer, CharacterTokenizer | PieceTokenizer | VocabularyTokenizer):
        raise TypeError(f"cannot save a {type(tokenizer).__name__}")
    folder.mkdir(parents=True, exist_ok=True)
    more: dict[str, Any] = {}
    if isinstance(tokenizer, PieceTokenizer):
        (folder / MODEL_FILE).write_bytes(tokenizer.model)
    if isinstance(tokenizer, VocabularyTokenizer):
        more = {name: getattr(tokenizer, name) for name in ("tokens", "ids", "delimiter", "silent")}
    settings = more | {
        "kind": kinds[type(tokenizer)],
        "alphabet": tokenizer.alphabet,
        "rules": dataclasses.asdict(rules),
        "num_tokens": tokenizer.num_tokens,
    }
    text = json.dumps(settings, ensure_ascii=False, indent=2) + "\n"
    (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")


def load_tokenizer(folder: Path) -> tuple[Tokenizer, TextRules]:
    """What `save_tokenizer` wrote.

    Raises:
        UserError: a file that is missing, malformed, or at odds with the other.
    """
    path = folder / SETTINGS_FILE
    try:
        settings = json.loads(_read(path))
    except ValueError:
        raise UserError(f"{path} is not JSON: copy it again from the run that made it") from None
    try:
        kind, alphabet, num_tokens = (settings[key] for key in ("kind", "alphabet", "num_tokens"))
        accents, apostrophes = (settings["rules"][key] for key in ("accents", "apostrophes"))
    except (KeyError, TypeError):
        raise UserError(
            f"{path} lacks what a tokenizer has: kind, alphabet, num_tokens and rules (accents, apostrophes)"
        ) from None
    if not (accents in ("keep", "fold") and apostrophes in ("keep", "fold")):
        raise UserError(f'{path} has rules {accents!r} and {apostrophes!r}: each must be "keep" or "fold"')
    if kind == "characters" and alphabet and isinstance(alphabet, str):
        tokenizer = CharacterTokenizer(alphabet)
    elif kind == "pieces":
        tokenizer = _read_pieces(folder / MODEL_FILE)
    elif kind == "vocabulary" and {"tokens", "ids", "delimiter", "silent"} <= settings.keys():
        tokenizer = VocabularyTokenizer(
            settings["tokens"], settings["ids"], settings["delimiter"], settings["silent"]
        )
    else:
        raise UserError(
            f'{path} has kind {kind!r}: give "characters", with an alphabet, "pieces", or "vocabulary", with '
            "its tokens"
        )
    if tokenizer.num_tokens != num_tokens or tokenizer.alphabet != alphabet:
        raise UserError(
            f"{path} says {num_tokens} tokens, but the tokenizer in {folder} has {tokenizer.num_tokens} or "
            "another alphabet: copy its files again from the run that made them"
        )
    return tokenizer, TextRules(accents=accents, apostrophes=apostrophes)


def _read_pieces(path: Path) -> PieceTokenizer:
    model = _read(path)
    try:
        return PieceTokenizer(model)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; give a folder with a saved tokenizer"
        ) from None
