"""Save tokenizers into a run folder and load them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from w2v_jax.errors import UserError
from w2v_jax.text.rules import TextRules
from w2v_jax.text.tokenizers import CharacterTokenizer, PieceTokenizer, Tokenizer, VocabularyTokenizer

SETTINGS_FILE, MODEL_FILE = "tokenizer.json", "tokenizer.model"


def save_tokenizer(folder: Path, tokenizer: Tokenizer, rules: TextRules) -> None:
    """Write tokenizer.json and, for pieces, tokenizer.model into `folder`, which is made where it is missing.

    Args:
        folder: a run folder.
        tokenizer: characters, pieces or a vocabulary.
        rules: text rules of its training transcripts.

    Raises:
        TypeError: the tokenizer is of another kind.
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
    """Read a tokenizer and its text rules from a run folder.

    Raises:
        UserError: a file is missing, malformed, or contradicts the other.
    """
    path = folder / SETTINGS_FILE
    try:
        settings = json.loads(_read(path))
    except ValueError:
        raise UserError(f"{path} is not JSON: copy it again from the run that made it") from None
    try:
        kind, alphabet, num_tokens = (settings[key] for key in ("kind", "alphabet", "num_tokens"))
        accents, apostrophes = (settings["rules"][key] for key in ("accents", "apostrophes"))
        language = settings["rules"].get("language", "")  # older runs have none
    except (KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path} lacks what a tokenizer has: kind, alphabet, num_tokens and rules (accents, apostrophes)"
        ) from None
    if not isinstance(language, str):
        raise UserError(f"{path} has language {language!r} in its rules: it must be a code, such as tr")
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
    return tokenizer, TextRules(accents=accents, apostrophes=apostrophes, language=language)


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
