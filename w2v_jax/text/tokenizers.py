"""Convert transcripts to token ids and back, for CTC. Id 0 is the blank, which `encode` never gives."""

import io
import re
import unicodedata
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import sentencepiece

from w2v_jax.errors import UserError

BLANK = 0
PIECE_SPACE = "▁"  # how SentencePiece writes a space


# SentencePiece's results depend on its number of threads, which is therefore fixed.
PIECE_THREADS = 4

LONGEST_SENTENCE_BYTES = 2**20  # SentencePiece silently skips longer ones


@runtime_checkable
class Tokenizer(Protocol):
    """Converts normalised text to token ids and back."""

    @property
    def num_tokens(self) -> int:
        """Number of ids, which run from 0 to num_tokens - 1, the blank included."""
        ...

    def encode(self, text: str) -> list[int]:
        """Convert `text` to token ids, without blanks.

        Raises:
            UserError: a character has no token.
        """
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Convert `ids` to text, without blanks; repeats are not merged.

        Raises:
            UserError: an id outside 0 to num_tokens - 1.
        """
        ...

    def unknown(self, text: str) -> set[str]:
        """Find the characters of `text` that have no token."""
        ...


class CharacterTokenizer:
    """A tokenizer with one token per character; id 1 is the first of the sorted `alphabet`."""

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
    """Make a tokenizer with a token for every character of `sentences`, and for the space."""
    return CharacterTokenizer("".join({" "}.union(*sentences)))


class PieceTokenizer:
    """A tokenizer with the pieces of a SentencePiece model; the blank takes id 0 from the unknown piece."""

    def __init__(self, model: bytes):
        """Read a serialised model.

        Args:
            model: a serialised model whose only special piece is the unknown one, at id 0.

        Raises:
            UserError: it is no SentencePiece model, or has other special pieces.
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
    """A tokenizer with a foreign checkpoint's vocabulary, in its order except that the blank is first."""

    def __init__(self, tokens: list[str], ids: list[int], delimiter: str, silent: Iterable[str]):
        """Keep a vocabulary.

        Args:
            tokens: spellings, the blank first.
            ids: the id of each token in the checkpoint.
            delimiter: token that stands for a space.
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
    """Train a SentencePiece unigram model on `sentences`; the same sentences give the same pieces.

    Args:
        sentences: normalised transcripts.
        num_tokens: number of ids, the blank included.

    Raises:
        UserError: there is no text, or num_tokens is too small for its characters or too large for the text.
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
