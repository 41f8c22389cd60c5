"""Vocabularies of CTC models, read as transformers' tokenizer reads and decodes them.

The expected texts are those of transformers 5.23.0; tests/parity compares live.
"""

import json

import pytest

from tests.w2v_jax.interop.made import POINTER, write_json
from w2v_jax.errors import UserError
from w2v_jax.interop.huggingface_vocabulary import read_vocabulary, write_vocabulary
from w2v_jax.text.rules import TextRules
from w2v_jax.text.storage import load_tokenizer, save_tokenizer
from w2v_jax.text.tokenizers import CharacterTokenizer, VocabularyTokenizer

BRACKETS = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
HOLED = {"[PAD]": 6, "[UNK]": 5, "a": 0, "b": 1, "|": 2, "c": 3}


def write(folder, vocabulary, **files):
    folder.mkdir(exist_ok=True)
    write_json(folder / "vocab.json", vocabulary)
    for name, value in files.items():
        write_json(folder / f"{name}.json", value)
    return folder


def decoded(vocabulary, their_ids):
    """Text of ids in the checkpoint's own order."""
    tokenizer = vocabulary.tokenizer
    return tokenizer.decode([tokenizer.ids.index(number) for number in their_ids]).strip()


CASES = {
    "holes and implied special tokens": (
        HOLED,
        {"tokenizer_config": BRACKETS},
        10,
        {},
        [0, 1, 2, 3, 4, 5, 6, 7, 6, 8],
        "ab c[UNK][UNK]</s>[UNK]",
    ),
    "added tokens": (
        HOLED,
        {"tokenizer_config": BRACKETS, "added_tokens": {"<s>": 8, "</s>": 7}},
        9,
        {"pad_token_id": 6},
        [0, 1, 7, 2, 3, 4, 6, 8],
        "ab</s> c[UNK]<s>",
    ),
    "pad is an added token": (
        {"a": 0, "b": 1, "|": 2},
        {"added_tokens": {"<pad>": 3}},
        5,
        {"pad_token_id": 0},
        [0, 3, 0, 1, 2, 4],
        "aab <s>",
    ),
    "added tokens of newer files": (
        {"a": 0, "|": 1},
        {"tokenizer_config": {"pad_token": "<pad>", "added_tokens_decoder": {"2": {"content": "<pad>"}}}},
        3,
        {},
        [0, 2, 0, 1, 0],
        "aa a",
    ),
    "lower case and another space": (
        {"A": 0, "B": 1, "|": 2, "<pad>": 3},
        {"tokenizer_config": {"do_lower_case": True, "replace_word_delimiter_char": "_"}},
        4,
        {"pad_token_id": 3},
        [0, 3, 0, 1, 2, 0],
        "aab_a",
    ),
    "special_tokens_map.json goes first": (
        {"A": 0, "|": 2, "<pad>": 3, "[PAD]": 1},
        {
            "tokenizer_config": {"pad_token": "[PAD]"},
            "special_tokens_map": {"pad_token": {"content": "<pad>"}},
        },
        4,
        {},
        [0, 3, 0, 1],
        "AA[PAD]",
    ),
    "more tokens than scores": (
        {"a": 0, "|": 1, "<pad>": 2, "b": 3, "c": 4},
        {},
        3,
        {"pad_token_id": 2},
        [0, 1, 0],
        "a a",
    ),
    "no delimiter": (
        {"a": 0, "<pad>": 1, "|": 2},
        {"tokenizer_config": {"word_delimiter_token": None}},
        3,
        {"pad_token_id": 1},
        [0, 2, 0],
        "a|a",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_ids_become_the_text_that_transformers_writes(tmp_path, case):
    vocabulary, files, scores, settings, ids, text = CASES[case]
    found = read_vocabulary(write(tmp_path / "m", vocabulary, **files), settings, scores)
    assert decoded(found, ids) == text
    # The run folder and the way back keep it.
    save_tokenizer(tmp_path / "run", found.tokenizer, TextRules())
    kept, _ = load_tokenizer(tmp_path / "run")
    written = write_vocabulary(tmp_path / "back", kept, found.settings)
    again = read_vocabulary(tmp_path / "back", written, scores)
    assert decoded(again, ids) == text
    assert (written["vocab_size"], written["pad_token_id"]) == (scores, found.tokenizer.ids[0])
    assert again.settings == found.settings


def test_what_is_assumed_is_told(tmp_path):
    folder = write(tmp_path / "m", HOLED, tokenizer_config=BRACKETS)
    notes = " / ".join(read_vocabulary(folder, {"pad_token_id": 0}, 10).notes)
    assert "the blank is [PAD], id 6 of the tokenizer; config.json states pad_token_id 0" in notes
    assert "has no token for ids 4, 8, 9: written as unknown" in notes
    assert "pad_token_id None" in read_vocabulary(folder, {}, 10).notes[0]
    notes = read_vocabulary(write(tmp_path / "m", HOLED | {"z": 12}), {"pad_token_id": 6}, 8).notes
    assert [note for note in notes if note.endswith("tokens without a score, which are left out: z")]
    assert not read_vocabulary(write(tmp_path / "n", {"<pad>": 0, "a": 1}), {"pad_token_id": 0}, 2).notes


def test_ids_that_two_tokens_have_are_told_and_negative_ones_refused(tmp_path):
    folder = write(tmp_path / "m", {"<pad>": 0, "a": 1, "b": 1}, added_tokens={"c": 0, "b": 7})
    notes = " / ".join(read_vocabulary(folder, {"pad_token_id": 0}, 2).notes)
    assert "have: a (id 1, read as b), c (id 0, read as <pad>)" in notes.replace("which are lost", "have")
    assert "have other ids: b (id 1, not 7)" in notes
    write(folder, {"<pad>": 0, "a": -1})
    with pytest.raises(
        UserError, match=r"vocab\.json gives 'a' the id -1: expected a whole number, 0 or more"
    ):
        read_vocabulary(folder, {}, 2)


def test_lower_case_is_written_and_upper_case_is_read(tmp_path):
    folder = write(tmp_path / "m", {"<pad>": 0, "|": 1, "A": 2}, tokenizer_config={"do_lower_case": True})
    tokenizer = read_vocabulary(folder, {"pad_token_id": 0}, 3).tokenizer
    assert tokenizer.encode("a a") == [2, 1, 2]
    assert tokenizer.decode([2, 1, 2]) == "a a"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"tokenizer_config": {"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"}},
            "Wav2Vec2PhonemeCTCTokenizer",
        ),
        (
            {"tokenizer_config": {"pad_token": "<blank>"}},
            "the padding token <blank>, which is the blank, has id 5",
        ),
        ({"tokenizer_config": {"do_lower_case": "yes"}}, "do_lower_case 'yes'"),
        ({"tokenizer_config": {"replace_word_delimiter_char": None}}, "replace_word_delimiter_char None"),
        ({"tokenizer_config": {"bos_token": ["<s>"]}}, "bos_token ['<s>']: it must be a text or null"),
        ({"tokenizer_config": {"added_tokens_decoder": []}}, "[]: expected a table from ids to tokens"),
        (
            {"tokenizer_config": {"added_tokens_decoder": {"x": {"content": "b"}}}},
            "tokenizer_config.json has the id 'x' in added_tokens_decoder: expected a whole number",
        ),
        ({"tokenizer_config": {"added_tokens_decoder": {"2": 5}}}, "the token 5 in added_tokens_decoder"),
        ({"added_tokens": {"a": "b"}}, "added_tokens.json gives 'a' the id 'b': expected a whole number"),
        ({"added_tokens": {"b": True}}, "added_tokens.json gives 'b' the id True"),
    ],
)
def test_other_tokenizers_are_refused_by_name(tmp_path, files, words):
    folder = write(tmp_path / "m", {"<pad>": 0, "a": 1}, **files)
    with pytest.raises(UserError) as error:
        read_vocabulary(folder, {}, 2)
    assert words in str(error.value)


def test_a_tokenizer_that_config_json_names(tmp_path):
    folder = write(tmp_path / "m", {"<pad>": 0, "a": 1})
    with pytest.raises(UserError, match="Wav2Vec2PhonemeCTCTokenizer"):
        read_vocabulary(folder, {"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"}, 2)


def test_pointers_and_several_languages_are_refused(tmp_path):
    folder = write(tmp_path / "m", {"en": {"<pad>": 0}})
    with pytest.raises(UserError, match="several languages"):
        read_vocabulary(folder, {}, 2)
    (folder / "vocab.json").write_text(POINTER)
    with pytest.raises(UserError, match="git lfs pull"):
        read_vocabulary(folder, {}, 2)


def test_vocabularies_of_older_run_folders(tmp_path):
    """They lack what is written for holes and spaces; holes wrote nothing then."""
    save_tokenizer(tmp_path, VocabularyTokenizer(["<pad>", "a", "<2>"], [0, 1, 2], "|", ["<2>"]), TextRules())
    path = tmp_path / "tokenizer.json"
    held = json.loads(path.read_text())
    for name in ("silent_text", "space", "lower_case"):
        del held[name]
    path.write_text(json.dumps(held))
    assert load_tokenizer(tmp_path)[0].decode([1, 2, 1]) == "aa"


def test_our_own_letters_are_written_with_defaults(tmp_path):
    write_vocabulary(tmp_path, CharacterTokenizer(" ab"))
    held = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (held["pad_token"], held["word_delimiter_token"], held["do_lower_case"]) == ("<pad>", "|", False)
    assert json.loads((tmp_path / "vocab.json").read_text()) == {"<pad>": 0, "|": 1, "a": 2, "b": 3}
