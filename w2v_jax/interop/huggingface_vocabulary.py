"""The vocabulary of a Hugging Face CTC model: vocab.json and tokenizer_config.json, in both directions."""

import json
from pathlib import Path
from typing import Any

from w2v_jax.errors import UserError
from w2v_jax.text.tokenizers import CharacterTokenizer, Tokenizer, VocabularyTokenizer

DELIMITER = "|"
_SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def read_vocabulary(folder: Path, blank: int, num_tokens: int) -> VocabularyTokenizer:
    """The tokens of a folder, the blank first.

    Args:
        folder: of Hugging Face.
        blank: its pad_token_id.
        num_tokens: scores of the model, which may be more than the vocabulary's entries.

    Raises:
        UserError: no vocab.json, or one that is no single list of tokens.
    """
    path = folder / "vocab.json"
    held = _json(path)
    if not held or not all(isinstance(number, int) for number in held.values()):
        raise UserError(f"{path} is not one vocabulary, token by token (several languages are not read)")
    config = _json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    by_id = {number: token for token, number in held.items()}
    if blank not in by_id or max(by_id) >= num_tokens:
        raise UserError(
            f"{path} has ids up to {max(by_id)}; the model has {num_tokens} scores, its blank is {blank}"
        )
    order = [blank, *(number for number in range(num_tokens) if number != blank)]
    tokens = [by_id.get(number, f"<{number}>") for number in order]
    without_text = {token for number, token in zip(order, tokens, strict=True) if number not in by_id}
    delimiter = _text(config.get("word_delimiter_token", DELIMITER))
    # Like transformers' own decoding, ours shows the tokens of a sentence's begin and end if they are chosen.
    return VocabularyTokenizer(tokens, order, delimiter, without_text)


def write_vocabulary(folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Write vocab.json and tokenizer_config.json; what config.json must say of them.

    Raises:
        UserError: tokens are pieces of words, which transformers' tokenizer of this model does not join.
    """
    if isinstance(tokenizer, CharacterTokenizer):
        tokens = [_SPECIAL["pad_token"], *(DELIMITER if c == " " else c for c in tokenizer.alphabet)]
        ids, delimiter = list(range(len(tokens))), DELIMITER
    elif isinstance(tokenizer, VocabularyTokenizer):
        tokens, ids, delimiter = tokenizer.tokens, tokenizer.ids, tokenizer.delimiter
    else:
        raise UserError(
            "transformers' tokenizer of wav2vec 2.0 joins characters, not pieces of words: only runs with "
            "--tokens characters can be converted"
        )
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in sorted(zip(ids, tokens, strict=True))}
    _write(folder / "vocab.json", vocabulary)
    _write(
        folder / "tokenizer_config.json",
        _SPECIAL
        | {
            "pad_token": tokens[0],
            "tokenizer_class": "Wav2Vec2CTCTokenizer",
            "processor_class": "Wav2Vec2Processor",
            "word_delimiter_token": delimiter,
            "do_lower_case": False,
            "replace_word_delimiter_char": " ",
        },
    )
    return {"vocab_size": len(tokens), "pad_token_id": ids[0]}


def _text(token: Any) -> str:
    """A token, which may be written as a record of its own."""
    return str(token.get("content")) if isinstance(token, dict) else str(token)


def _json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): a CTC model needs its vocabulary") from error
    if not isinstance(held, dict):
        raise UserError(f"{path} is not a table of tokens")
    return held


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
