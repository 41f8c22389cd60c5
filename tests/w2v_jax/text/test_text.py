import dataclasses
import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2v_jax.errors import UserError
from w2v_jax.text.rules import TextRules, normalise
from w2v_jax.text.storage import load_tokenizer, save_tokenizer
from w2v_jax.text.tokenizers import (
    CharacterTokenizer,
    PieceTokenizer,
    Tokenizer,
    train_characters,
    train_pieces,
)

KEEP = TextRules()
ALL_RULES = [
    TextRules(accents=a, apostrophes=b, language=c)
    for a in ("keep", "fold")
    for b in ("keep", "fold")
    for c in ("", "tr")
]
SENTENCES = [
    "il gatto è sul tavolo della cucina",
    "la casa rossa è sulla collina",
    "c'è il sole e l'acqua è fredda",
    "perché il gatto non è nella casa",
    "ciao mondo bello",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ciao, MONDO!", "ciao mondo"),
        ("  a\t b\n\u00a0c ", "a b c"),
        ("L’acqua l‘acqua lʼacqua l`acqua l´acqua l′acqua", " ".join(["l'acqua"] * 6)),
        ("perche\u0301", "perch\u00e9"),
        ("un po' di rock 'n' roll", "un po' di rock 'n' roll"),
        ("disse ' ciao ' e '", "disse ciao e"),
        ("nel '60 alto 5'6", "nel 60 alto 5 6"),
        ("``ciao'' l''acqua", "ciao l'acqua"),
        ("“già” — (noto)…", "già noto"),
        ("nord-est e/o 3€ + 4°", "nord est e o 3 4"),
        ("a_b", "a b"),
        ("co\u00adope\u200drare", "cooperare"),
        ("ti ❤\ufe0f amo", "ti amo"),
        ("\u0301 e", "e"),
        ("हिन्दी में", "हिन्दी में"),
        ("İstanbul STRASSE straße", "istanbul strasse straße"),
        ("ինչպե՞ս Բարև՛", "ինչպես բարև"),
        ("in·hèr des·har col⋅legi", "in·hèr des·har col·legi"),
        ("COL·LEGI il‧lusió paral•lel xŀl a·b", "col·legi il·lusió paral·lel xl·l a b"),
        ('צה״ל ש"ס ג׳ורג׳', "צה״ל ש״ס ג'ורג'"),
        ("״שלום״ אמר", "שלום אמר"),
        ("disse 'ciao' e 'buon giorno' e", "disse ciao e buon giorno e"),
        ("‘Hello there,’ she said", "hello there she said"),
        ("'sto gatto ha un po' fame", "'sto gatto ha un po' fame"),
        ("the dogs' owner said 'yes'", "the dogs' owner said yes"),
        ("น้ำ ทำ", "น้ำ ทำ"),
        ("ｆｕｌｌ ﻻ", "full لا"),
        ("ﬁnal oﬃce ĲSSEL ﬂuß", "final office ijssel fluß"),
        ("... ! '", ""),
    ],
)
def test_what_is_kept(text, expected):
    assert normalise(text, KEEP) == expected


@pytest.mark.parametrize("language", ["tr", "az", "tr-TR"])
def test_letter_case_of_languages_with_a_dotless_i(language):
    rules = TextRules(language=language)
    assert normalise("İzmir güzel, ILIK IŞIK", rules) == "izmir güzel ılık ışık"
    alphabet = train_characters([normalise("İzmir I\u0307zmir", rules)]).alphabet
    assert "\u0307" not in alphabet


def test_the_dot_of_a_capital_i_is_no_token_in_any_language():
    assert "\u0307" not in train_characters([normalise("İzmir I\u0307zmir", KEEP)]).alphabet


def test_what_is_folded():
    text = "È l’università, perché no? Ångström Øre İ"
    assert normalise(text, TextRules(accents="fold")) == "e l'universita perche no angstrom øre i"
    assert normalise(text, TextRules(apostrophes="fold")) == "è l università perché no ångström øre i"
    assert normalise("l'acqua", TextRules(apostrophes="fold")) == "l acqua"
    assert normalise("हिन्दी", TextRules(accents="fold")).startswith("हि")  # its vowel signs are no accents


# Plain text() seldom puts the characters that interact next to one another.
anything = st.text() | st.text("aÈΣ1 '’`´.\u0301\u0327\u00ad\ufe0f\u200dİϓ≠l·שׁ״Iﬁŉ")


@settings(deadline=None)
@given(anything, st.sampled_from(ALL_RULES))
def test_normalising_again_changes_nothing(text, rules):
    once = normalise(text, rules)
    assert normalise(once, rules) == once
    assert unicodedata.normalize("NFC", once) == once == once.lower()
    assert once == " ".join(once.split())
    assert all(unicodedata.category(char)[0] in "LMN" or char in " '·״" for char in once)
    if rules.apostrophes == "fold":
        assert "'" not in once
    if rules.accents == "fold":
        assert not any(unicodedata.combining(char) for char in unicodedata.normalize("NFD", once))


def test_characters_are_sorted_after_the_blank():
    tokenizer = CharacterTokenizer("cab bè")
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.alphabet, tokenizer.num_tokens) == (" abcè", 6)
    assert tokenizer.encode("bè a") == [3, 5, 1, 2]
    assert tokenizer.decode([0, 3, 0, 0, 3, 3, 5, 0]) == "bbbè"  # blanks go, repeats stay
    assert tokenizer.decode(iter([])) == ""
    assert CharacterTokenizer("e\u0300").alphabet == "è"
    with pytest.raises(UserError, match="alphabet is empty"):
        CharacterTokenizer("")


def test_trained_characters_have_a_space_and_every_character():
    assert train_characters(iter(["ab", "cb"])).alphabet == " abc"
    assert train_characters([]).alphabet == " "


@pytest.fixture(scope="module")
def pieces():
    return train_pieces(SENTENCES, 32)


@pytest.mark.parametrize("kind", ["characters", "pieces"])
def test_round_trip_without_blanks(kind, pieces):
    tokenizer = pieces if kind == "pieces" else train_characters(SENTENCES)
    assert isinstance(tokenizer, Tokenizer)
    for sentence in [*SENTENCES, "", "l'acqua", "gatto"]:
        ids = tokenizer.encode(sentence)
        assert all(0 < number < tokenizer.num_tokens for number in ids)
        assert tokenizer.decode(ids) == sentence
        with_blanks = [number for token in ids for number in (0, token)]
        assert tokenizer.decode(np.array(with_blanks, np.int64).tolist()) == sentence
    assert tokenizer.decode([0, 0]) == ""
    for number in (-1, tokenizer.num_tokens):  # Python would take -1 for the last token
        with pytest.raises(UserError, match=f"no token has id {number}: .* 0 to {tokenizer.num_tokens - 1}"):
            tokenizer.decode([1, number])


@pytest.mark.parametrize("kind", ["characters", "pieces"])
def test_characters_without_a_token_are_named(kind, pieces):
    tokenizer = pieces if kind == "pieces" else train_characters(SENTENCES)
    assert tokenizer.unknown("gatto è") == set()
    assert tokenizer.unknown("gatto ñ w ñ ▁") == {"ñ", "w", "▁"}
    advice = "train the pieces" if kind == "pieces" else "add them with --alphabet, or leave --alphabet out"
    with pytest.raises(UserError, match=f"no token for the characters 'w' 'ñ': {advice}") as caught:
        tokenizer.encode("ñ w a")
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(st.text("abcdè' ").map(lambda text: normalise(text, KEEP)))
def test_pieces_give_any_text_back(pieces, text):
    assert pieces.decode(pieces.encode(text)) == text


def test_pieces_are_whole_quiet_and_the_same_every_time(pieces, capfd):
    again = train_pieces(iter(SENTENCES), 32)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert again.model == pieces.model
    assert again.num_tokens == 32
    assert set(again.alphabet) == set("".join(SENTENCES))
    assert len(again.encode(SENTENCES[0])) < len(SENTENCES[0])  # some pieces are longer than a character


def test_pieces_leave_text_alone():
    # SentencePiece's own normalisation would make these 1/2, 2, fi, 1 and s.
    text = "½ ² ﬁne ① ſ"
    tokenizer = train_pieces([text] * 3, len(set(text)) + 1)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_long_sentences_are_not_skipped():
    tokenizer = train_pieces(["ab ab", "cd " * 5_000], 6)
    assert tokenizer.alphabet == " abcd"


def test_too_many_or_too_few_pieces():
    with pytest.raises(UserError, match=r"more than the text can give: give [0-9]+ or fewer") as caught:
        train_pieces(SENTENCES, 5_000)
    assert "\n" not in str(caught.value)
    most = int(str(caught.value).split("give: give ")[1].split()[0])
    assert train_pieces(SENTENCES, most).num_tokens == most
    with pytest.raises(UserError, match=f"give {most} or fewer"):
        train_pieces(SENTENCES, most + 1)

    fewest = len(set("".join(SENTENCES))) + 1
    assert train_pieces(SENTENCES, fewest).num_tokens == fewest
    with pytest.raises(UserError, match=f"the text has {fewest - 1}, so give {fewest} or more"):
        train_pieces(SENTENCES, fewest - 1)
    # The space counts even where there is none.
    assert train_pieces(["a"], 3).alphabet == " a"
    with pytest.raises(UserError, match="the text has 2, so give 3 or more"):
        train_pieces(["a"], 2)
    with pytest.raises(UserError, match="every transcript is empty"):
        train_pieces(["", " "], 10)


def test_models_that_are_not_ours_are_refused():
    import io

    import sentencepiece

    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(SENTENCES), model_writer=writer, vocab_size=30, minloglevel=2
    )
    with pytest.raises(UserError, match=r"special pieces at ids \[0, 1, 2\]"):
        PieceTokenizer(writer.getvalue())
    for content in (b"", b"junk"):
        with pytest.raises(UserError, match="not a SentencePiece model"):
            PieceTokenizer(content)


@pytest.mark.parametrize("kind", ["characters", "pieces"])
@pytest.mark.parametrize("rules", ALL_RULES)
def test_saved_and_loaded(tmp_path, kind, rules, pieces):
    tokenizer = pieces if kind == "pieces" else train_characters(SENTENCES)
    folder = tmp_path / "new" / "folder"
    save_tokenizer(folder, tokenizer, rules)
    loaded, loaded_rules = load_tokenizer(folder)
    assert type(loaded) is type(tokenizer)
    assert loaded_rules == rules
    assert loaded.num_tokens == tokenizer.num_tokens
    assert [loaded.encode(s) for s in SENTENCES] == [tokenizer.encode(s) for s in SENTENCES]
    saved = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert saved["kind"] == kind
    assert saved["num_tokens"] == tokenizer.num_tokens
    assert saved["rules"] == dataclasses.asdict(rules)


def refused(folder, message):
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_bad_folders_are_refused_in_one_line(tmp_path, pieces):
    refused(tmp_path, r"cannot read .*tokenizer\.json")
    save_tokenizer(tmp_path, pieces, KEEP)
    path, model = tmp_path / "tokenizer.json", tmp_path / "tokenizer.model"
    good = json.loads(path.read_text(encoding="utf-8"))
    for content, message in (
        ("{", "is not JSON"),
        ("[1]", "lacks what a tokenizer has"),
        (json.dumps({"kind": "pieces"}), "lacks what a tokenizer has"),
        (json.dumps(good | {"rules": {"accents": "keep"}}), "lacks what a tokenizer has"),
        (json.dumps(good | {"rules": {"accents": "drop", "apostrophes": "keep"}}), "rules 'drop' and 'keep'"),
        (json.dumps(good | {"rules": {"accents": [], "apostrophes": "keep"}}), "each must be"),
        (json.dumps(good | {"kind": "words"}), "kind 'words'"),
        (json.dumps(good | {"kind": "characters", "alphabet": None}), "kind 'characters'"),
        (json.dumps(good | {"kind": "characters", "alphabet": ""}), "with an alphabet"),
        (json.dumps(good | {"num_tokens": 31}), "says 31 tokens"),
        (json.dumps(good | {"alphabet": "abc"}), "another alphabet"),
    ):
        path.write_text(content, encoding="utf-8")
        refused(tmp_path, message)
    path.write_bytes(b"\xff")
    refused(tmp_path, "is not JSON")
    path.write_text(json.dumps(good), encoding="utf-8")
    model.write_bytes(model.read_bytes()[:100])
    refused(tmp_path, r"tokenizer\.model: not a SentencePiece model")
    model.unlink()
    refused(tmp_path, r"cannot read .*tokenizer\.model")
