"""The vocabulary of a Hugging Face CTC model: vocab.json and its tokenizer's settings, in both directions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from w2v_jax.errors import UserError
from w2v_jax.interop.foreign_files import named, read_optional, read_settings
from w2v_jax.text.tokenizers import CharacterTokenizer, Tokenizer, VocabularyTokenizer

VOCABULARY_FILE, SETTINGS_FILE = "vocab.json", "tokenizer_config.json"
# transformers' defaults. It adds the special ones that a vocabulary lacks behind its last token, in this
# order.
_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_DEFAULTS: dict[str, Any] = _SPECIAL | {
    "word_delimiter_token": "|",
    "replace_word_delimiter_char": " ",
    "do_lower_case": False,
}
MOST_DIGITS = 9  # of an id
_CLASSES = ("Wav2Vec2CTCTokenizer", "Wav2Vec2Tokenizer")


class Vocabulary(NamedTuple):
    """A vocabulary of a folder.

    Attributes:
        tokenizer: ours; its blank is the first token.
        settings: the settings of transformers' tokenizer, for `write_vocabulary`.
        notes: lines for the user on what is assumed or left aside.
    """

    tokenizer: VocabularyTokenizer
    settings: dict[str, Any]
    notes: list[str]


def read_vocabulary(folder: Path, model_settings: Mapping[str, Any], num_tokens: int) -> Vocabulary:
    """Read the tokens of a folder as transformers' tokenizer has them.

    Args:
        folder: the folder.
        model_settings: its config.json, whose pad_token_id is compared.
        num_tokens: scores of the model, which may be more or fewer than the vocabulary's entries.

    Raises:
        UserError: no vocab.json, one that is no single list of tokens with ids from 0, a tokenizer of another
            class, or one whose padding token, which is the blank, has no score.
    """
    path = folder / VOCABULARY_FILE
    held = read_settings(path, "a vocabulary, which a CTC model needs")
    if not held or not all(type(number) is int for number in held.values()):
        raise UserError(f"{path} is not one vocabulary, token by token (several languages are not read)")
    _check_ids(path, held)
    settings, added = _settings(folder, model_settings)
    by_id = _by_id(held, added, settings)
    blank = {token: number for number, token in by_id.items()}[settings["pad_token"]]
    if blank >= num_tokens:
        raise UserError(
            f"{path}: the padding token {settings['pad_token']}, which is the blank, has id {blank}, but the "
            f"model has {num_tokens} scores: name the blank as pad_token in {SETTINGS_FILE}"
        )
    notes = _notes(path, by_id, set(held) | set(added), blank, model_settings, num_tokens)
    notes += _contested(path, held, added, by_id)
    order = [blank, *(number for number in range(num_tokens) if number != blank)]
    tokens = [by_id.get(number, f"<{number}>") for number in order]
    holes = [token for number, token in zip(order, tokens, strict=True) if number not in by_id]
    # Like transformers' decoding, ours writes out special tokens other than the blank if they are chosen,
    # and the token for unknown ones where an id has no token.
    tokenizer = VocabularyTokenizer(
        tokens,
        order,
        settings["word_delimiter_token"],
        holes,
        silent_text=settings["unk_token"],
        space=settings["replace_word_delimiter_char"],
        lower_case=settings["do_lower_case"],
    )
    return Vocabulary(tokenizer, settings, notes)


def _notes(
    path: Path,
    by_id: dict[int, str],
    written: set[str],
    blank: int,
    model_settings: Mapping[str, Any],
    num_tokens: int,
) -> list[str]:
    """Lines for the user: another padding token in config.json, ids without token, tokens without score."""
    notes = []
    stated = model_settings.get("pad_token_id")
    if stated != blank:
        notes.append(
            f"{path.parent}: the blank is {by_id[blank]}, id {blank} of the tokenizer; config.json states "
            f"pad_token_id {stated}"
        )
    holes = sorted(set(range(num_tokens)) - by_id.keys())
    if holes:
        notes.append(f"{path} has no token for ids {named(list(map(str, holes)))}: written as unknown")
    beyond = [token for number, token in by_id.items() if number >= num_tokens and token in written]
    if beyond:
        notes.append(f"{path} has tokens without a score, which are left out: {named(beyond)}")
    return notes


def _contested(
    path: Path, held: Mapping[str, int], added: Mapping[str, int], by_id: Mapping[int, str]
) -> list[str]:
    """Lines for the user on tokens whose id another token has, and on tokens with two ids."""
    pairs = [*held.items(), *((token, number) for token, number in added.items() if token not in held)]
    lost = [
        f"{token} (id {number}, read as {by_id[number]})" for token, number in pairs if by_id[number] != token
    ]
    moved = [f"{token} (id {held[token]}, not {n})" for token, n in added.items() if held.get(token, n) != n]
    notes = [f"{path} has tokens whose id another token has, which are lost: {named(lost)}"] if lost else []
    if moved:
        notes.append(f"{path} goes before the added tokens, which have other ids: {named(moved)}")
    return notes


def _check_ids(path: Path, table: Mapping[str, Any]) -> None:
    """Refuse a table of tokens whose ids are no whole numbers from 0.

    Raises:
        UserError: it is one.
    """
    for token, number in table.items():
        if type(number) is not int or number < 0:
            raise UserError(f"{path} gives {token!r} the id {number!r}: expected a whole number, 0 or more")


def _settings(folder: Path, model_settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """Read the settings of transformers' tokenizer, and the tokens that other files add to vocab.json.

    Raises:
        UserError: a tokenizer of another class, or settings that are none.
    """
    path = folder / SETTINGS_FILE
    held = read_optional(path, "a tokenizer_config.json")
    known = str(held.get("tokenizer_class") or model_settings.get("tokenizer_class") or _CLASSES[0])
    if known not in _CLASSES and known.endswith("Tokenizer"):
        raise UserError(
            f"{path} names the tokenizer {known}: only {_CLASSES[0]} is read; finetune --init hf:FOLDER can "
            "take the encoder alone"
        )
    if "added_tokens_decoder" in held:
        added = _decoder(path, held["added_tokens_decoder"])
    else:  # older files
        held = held | read_optional(folder / "special_tokens_map.json", "a special_tokens_map.json")
        added = read_optional(folder / "added_tokens.json", "a table of added tokens")
        _check_ids(folder / "added_tokens.json", added)
    settings = {name: _text(held.get(name, default)) for name, default in _DEFAULTS.items()}
    if type(settings["do_lower_case"]) is not bool:
        raise UserError(f"{path} has do_lower_case {settings['do_lower_case']!r}: it must be true or false")
    for name in ("pad_token", "unk_token", "replace_word_delimiter_char"):
        if type(settings[name]) is not str:
            raise UserError(f"{path} has {name} {settings[name]!r}: it must be a text")
    for name in ("bos_token", "eos_token", "word_delimiter_token"):
        if settings[name] is not None and type(settings[name]) is not str:
            raise UserError(f"{path} has {name} {settings[name]!r}: it must be a text or null")
    return settings, added


def _decoder(path: Path, held: Any) -> dict[str, int]:
    """Read added_tokens_decoder, a table from ids to tokens, as ids by token.

    Raises:
        UserError: it is no such table.
    """
    if not isinstance(held, dict):
        raise UserError(f"{path} has added_tokens_decoder {held!r}: expected a table from ids to tokens")
    added: dict[str, int] = {}
    for number, token in held.items():
        if not (number.isascii() and number.isdigit() and len(number) <= MOST_DIGITS):
            raise UserError(
                f"{path} has the id {number!r} in added_tokens_decoder: expected a whole number, 0 or more"
            )
        if type(_text(token)) is not str:
            raise UserError(f"{path} has the token {token!r} in added_tokens_decoder: expected a text")
        added[_text(token)] = int(number)
    return added


def _by_id(held: Mapping[str, int], added: Mapping[str, int], settings: Mapping[str, Any]) -> dict[int, str]:
    """Tokens by id: of vocab.json, then added ones, then special ones that neither has."""
    by_id = {number: token for token, number in held.items()}
    for token, number in added.items():
        if token not in held:
            by_id.setdefault(number, token)
    following = len({*held, *added})
    for name in _SPECIAL:
        token = settings[name]
        if token is not None and token not in by_id.values():
            by_id.setdefault(following, token)
            following += 1
    if settings["pad_token"] not in by_id.values():
        by_id[max(by_id) + 1] = settings["pad_token"]
    return by_id


def write_vocabulary(
    folder: Path, tokenizer: Tokenizer, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write vocab.json and tokenizer_config.json; return what config.json must state of them.

    Args:
        folder: made if need be.
        tokenizer: the tokenizer of a recognizer.
        settings: the settings of the tokenizer that it was read from (`Vocabulary.settings`).

    Raises:
        UserError: tokens are pieces of words, which transformers' tokenizer of this model does not join.
    """
    if isinstance(tokenizer, CharacterTokenizer):
        pad, delimiter = _SPECIAL["pad_token"], _DEFAULTS["word_delimiter_token"]
        tokens = [pad, *(delimiter if c == " " else c for c in tokenizer.alphabet)]
        ids, silent = list(range(len(tokens))), []
    elif isinstance(tokenizer, VocabularyTokenizer):
        tokens, ids, delimiter, silent = (
            tokenizer.tokens,
            tokenizer.ids,
            tokenizer.delimiter,
            tokenizer.silent,
        )
    else:
        raise UserError(
            "transformers' tokenizer of wav2vec 2.0 joins characters, not pieces of words: only runs with "
            "--tokens characters can be converted"
        )
    folder.mkdir(parents=True, exist_ok=True)
    pairs = sorted(zip(ids, tokens, strict=True))
    _write(folder / VOCABULARY_FILE, {token: number for number, token in pairs if token not in silent})
    written = _DEFAULTS | dict(settings or {}) | {"pad_token": tokens[0], "word_delimiter_token": delimiter}
    classes = {"tokenizer_class": _CLASSES[0], "processor_class": "Wav2Vec2Processor"}
    _write(folder / SETTINGS_FILE, written | classes)
    return {"vocab_size": len(tokens), "pad_token_id": ids[0]}


def _text(token: Any) -> Any:
    """A token, which may be written as a record of its own."""
    return token.get("content") if isinstance(token, dict) else token


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
