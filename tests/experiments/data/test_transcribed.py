"""Transcribed speech: splits that are made where a release lacks them, and what is left out."""

import dataclasses
import functools

import numpy as np
import pytest
import soundfile

from experiments.data import splits as splits_module
from experiments.data import transcribed
from experiments.data.transcribed import Transcribed
from w2v_jax.data.common_voice import column, lengths
from w2v_jax.data.prepared.preparation import prepare
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.errors import CorpusError
from w2v_jax.text.rules import TextRules, normalise
from w2v_jax.text.tokenizers import CharacterTokenizer

RULES = TextRules()
SECOND = 16_000
SHORTEST = 400


def write_locale(folder, tables):
    """A Common Voice folder: split -> rows of (speaker, path, sentence, samples)."""
    (folder / "clips").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, rows in tables.items():
        lines = ["client_id\tpath\tsentence"]
        for speaker, path, sentence, num_samples in rows:
            noise = 0.1 * rng.standard_normal(num_samples)
            soundfile.write(folder / "clips" / path, noise, SECOND)
            lines.append(f"{speaker}\t{path}\t{sentence}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def load(folder, rules=RULES, max_samples=8 * SECOND, seed=0):
    return transcribed.load(str(folder), rules, min_samples=SHORTEST, max_samples=max_samples, seed=seed)


def rows_of(speakers, sentences, prefix="a"):
    """Every speaker says every sentence."""
    return [
        (f"s{s:02d}", f"{prefix}{s:02d}_{i:02d}.wav", sentence, 500 + 10 * i)
        for s in range(speakers)
        for i, sentence in enumerate(sentences)
    ]


SENTENCES = [f"parola numero {word}" for word in "abcdefghijklmnopqrstuvwxyz"]


def paths(splits):
    return {split: sorted(column(held.clips, "path")) for split, held in splits.items()}


@pytest.mark.parametrize("split", ["validated", "train"])
def test_with_ten_speakers_made_splits_share_no_speaker(tmp_path, split):
    folder = write_locale(tmp_path / "xx", {split: rows_of(20, SENTENCES[:3])})
    splits = load(folder)
    speakers = {name: set(column(held.clips, "client_id")) for name, held in splits.items()}
    assert [len(speakers[name]) for name in ("train", "dev", "test")] == [16, 2, 2]
    assert len(set.union(*speakers.values())) == 20
    assert sum(len(held.clips) for held in splits.values()) == 60
    assert {held.source for held in splits.values()} == (
        {"made from validated.tsv"} if split == "validated" else {"train.tsv", "made from train.tsv"}
    )


def test_a_test_split_that_a_release_has_is_kept_and_its_speakers_not_trained_on(tmp_path):
    rows = rows_of(20, SENTENCES[:3])
    folder = write_locale(tmp_path / "xx", {"validated": rows, "test": rows[:6]})
    splits = load(folder)
    assert paths(splits)["test"] == sorted(row[1] for row in rows[:6])
    assert splits["test"].source == "test.tsv"
    assert splits["train"].source == "made from validated.tsv"
    rest = {*column(splits["train"].clips, "client_id"), *column(splits["dev"].clips, "client_id")}
    assert rest == {f"s{number:02d}" for number in range(2, 20)}


def test_clips_that_cannot_be_read_are_counted_in_their_split(tmp_path):
    tables = {"train": rows_of(12, SENTENCES[:2]), "test": rows_of(2, SENTENCES[:2], "b")}
    folder = write_locale(tmp_path / "xx", tables)
    (folder / "clips" / "b00_00.wav").write_text("words")
    splits = load(folder)
    assert len(splits["test"].clips) == 3
    assert splits["test"].dropped == {"undecodable": 1}


def test_with_fewer_speakers_made_splits_share_no_sentence(tmp_path):
    folder = write_locale(tmp_path / "xx", {"validated": rows_of(3, SENTENCES)})
    splits = load(folder)
    texts = {name: set(held.texts) for name, held in splits.items()}
    assert not texts["train"] & texts["dev"]
    assert not texts["train"] & texts["test"]
    assert not texts["dev"] & texts["test"]
    assert [len(texts[name]) for name in ("train", "dev", "test")] == [20, 3, 3]
    assert [len(splits[name].clips) for name in ("train", "dev", "test")] == [60, 9, 9]


@pytest.mark.parametrize("rules", [RULES, TextRules(accents="fold", apostrophes="fold")], ids=str)
def test_sentences_that_are_the_same_once_normalised_are_in_one_split(tmp_path, rules):
    # Prompts that differ in case, punctuation, accents or apostrophes are no held-out sentences.
    sentences = [
        variant
        for word in "abcdefghijklmnopqrst"
        for variant in (f"È l'ora {word}", f"è l’ora {word}.", f"E' l ora {word}", f"e, l'ora {word}!")
    ]
    splits = load(write_locale(tmp_path / "xx", {"validated": rows_of(1, sentences)}), rules)
    texts = [
        {normalise(text, splits_module.COARSEST_RULES) for text in held.texts} for held in splits.values()
    ]
    assert [len(found) for found in texts] == [16, 2, 2]
    assert len(set.union(*texts)) == 20


def test_splits_are_the_same_for_every_seed_and_any_rules(tmp_path):
    folder = write_locale(tmp_path / "xx", {"validated": rows_of(2, SENTENCES)})
    first = paths(load(folder))
    assert paths(load(folder, seed=5)) == first
    assert paths(load(folder, TextRules(accents="fold", apostrophes="fold"))) == first
    assert all(first.values())


def test_the_releases_own_splits_are_used_as_they_are(tmp_path):
    tables = {
        split: rows_of(speakers, SENTENCES[:2], prefix=split)
        for split, speakers in (("train", 4), ("dev", 2), ("test", 1), ("validated", 9))
    }
    splits = load(write_locale(tmp_path / "xx", tables))
    for split, speakers in (("train", 4), ("dev", 2), ("test", 1)):
        assert sorted(column(splits[split].clips, "path")) == sorted(row[1] for row in tables[split])
        assert splits[split].source == f"{split}.tsv"
        assert len(set(column(splits[split].clips, "client_id"))) == speakers


def test_a_split_that_lists_nothing_is_made_and_the_other_one_kept(tmp_path):
    tables = {
        "train": rows_of(12, SENTENCES[:2], "t"), "test": rows_of(2, SENTENCES[:2], "u"), "dev": [],
    }  # fmt: skip
    splits = load(write_locale(tmp_path / "xx", tables))
    assert splits["dev"].source == "made from train.tsv"
    assert splits["test"].source == "test.tsv"
    assert len(splits["test"].clips) == 4
    assert len(splits["train"].clips) + len(splits["dev"].clips) == 24
    assert not set(column(splits["train"].clips, "client_id")) & set(column(splits["dev"].clips, "client_id"))


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path):
    usable = [("a", f"{i}.wav", sentence, 800) for i, sentence in enumerate(SENTENCES[:4])]
    odd = [
        ("a", "long.wav", "troppo lunga", 2 * SECOND),
        ("a", "longer.wav", "ancora di più", 2 * SECOND + 1),
        ("a", "dots.wav", "... !", 800),
        ("b", "none.wav", "", 800),
    ]
    renamed = {
        split: [(speaker, f"{split}{path}", *rest) for speaker, path, *rest in usable + odd]
        for split in ("train", "dev", "test")
    }
    splits = load(write_locale(tmp_path / "xx", renamed), max_samples=2 * SECOND)
    assert splits["train"].dropped == {"without transcript": 2, "too long": 1}
    assert sorted(splits["train"].texts) == sorted([*SENTENCES[:4], "troppo lunga"])
    # What is scored keeps every clip that has a transcript.
    for split in ("dev", "test"):
        assert splits[split].dropped == {"without transcript": 2}
        assert len(splits[split].clips) == len(splits[split].texts) == 6
    summary = splits["train"].summary()
    assert (summary["clips"], summary["sentences"], summary["speakers"]) == (5, 5, 1)
    assert summary["words"] == 14
    assert summary["seconds"] == pytest.approx((4 * 800 + 2 * SECOND) / SECOND)


def test_clips_without_a_transcript_take_no_place_in_made_splits(tmp_path):
    rows = rows_of(1, SENTENCES)
    untold = [("s00", f"x{i}.wav", "", 800) for i in range(40)]
    splits = load(write_locale(tmp_path / "xx", {"validated": rows + untold}))
    assert [len(splits[name].clips) for name in ("train", "dev", "test")] == [20, 3, 3]
    assert splits["train"].dropped == {"without transcript": 40}
    assert splits["dev"].dropped == splits["test"].dropped == {}


@pytest.mark.parametrize(
    ("speakers", "table", "expected"),
    [
        (12, "train", "no clip of train has a transcript"),
        (2, "validated", "0 different sentences (column `sentence`)"),
    ],
)
def test_a_corpus_without_sentences_is_one_clear_error(tmp_path, speakers, table, expected):
    folder = write_locale(tmp_path / "xx", {table: rows_of(speakers, [""])})
    with pytest.raises(CorpusError, match="sentence") as error:
        load(folder)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_without_the_column_is_one_clear_error(tmp_path):
    locale = write_corpus(tmp_path, SyntheticConfig(speakers=4, clips_per_speaker=1, words=5))
    for split in ("train", "dev", "test", "validated"):
        path = locale / f"{split}.tsv"
        kept = ["\t".join(line.split("\t")[:2]) for line in path.read_text().splitlines()]
        path.write_text("\n".join(kept) + "\n")
    with pytest.raises(CorpusError, match="no clip of train has a transcript and a usable length"):
        load(locale)


def test_too_few_sentences_to_set_any_aside(tmp_path):
    folder = write_locale(tmp_path / "xx", {"validated": rows_of(2, SENTENCES[:2])})
    with pytest.raises(CorpusError, match="2 different sentences"):
        load(folder)


def test_a_prepared_corpus_gives_the_same(tmp_path):
    folder = write_locale(tmp_path / "xx", {"validated": rows_of(2, SENTENCES)})
    plain, prepared = load(folder), load(prepare(folder, tmp_path / "prepared"))
    assert paths(prepared) == paths(plain)
    for split, held in plain.items():
        expected = dict(zip(column(held.clips, "path"), held.texts, strict=True))
        found = prepared[split]
        assert dict(zip(column(found.clips, "path"), found.texts, strict=True)) == expected
        assert found.summary() == held.summary()


def test_a_synthetic_corpus_follows_the_seed(monkeypatch):
    small = functools.partial(SyntheticConfig, speakers=4, clips_per_speaker=2)
    monkeypatch.setattr(transcribed, "SyntheticConfig", small)
    made = [
        transcribed.load(None, RULES, min_samples=SHORTEST, max_samples=8 * SECOND, seed=seed)["test"].texts
        for seed in (1, 1, 2)
    ]
    assert made[0] == made[1] != made[2]


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "xx"
    tables = {split: rows_of(2, SENTENCES, split) for split in ("train", "dev", "test")}
    return load(write_locale(folder, tables))["train"]


def test_smaller_budgets_are_contained_in_larger_ones(train):
    previous: set[str] = set()
    seconds = lengths(train.clips) / SECOND
    for share in (0.0, 0.1, 0.35, 0.7, 1.0, 3.0):
        budget = share * seconds.sum()
        held = transcribed.within_minutes(train, float(budget / 60 + 1e-9))
        found = set(column(held.clips, "path"))
        assert previous <= found
        assert len(found) == len(held.texts) == len(held.clips) >= 1
        assert held.seconds <= max(budget + 1e-3, seconds.max())
        if share >= 0.1:  # and as full as whole clips make it
            assert held.seconds >= min(budget, seconds.sum()) - seconds.max()
        whose = dict(zip(column(train.clips, "path"), train.texts, strict=True))
        assert [whose[path] for path in column(held.clips, "path")] == held.texts
        previous = found
    assert len(previous) == len(train.clips)


@pytest.mark.parametrize("seed", range(5))
def test_shuffling_leaves_no_clip_its_own_transcript(train, seed):
    distinct = [f"{text} {number}" for number, text in enumerate(train.texts)]
    given = dataclasses.replace(train, texts=distinct)
    found = transcribed.shuffled(given, seed)
    assert sorted(found.texts) == sorted(distinct)
    assert all(here != there for here, there in zip(found.texts, distinct, strict=True))
    assert found.clips is given.clips
    assert transcribed.shuffled(given, seed).texts == found.texts
    assert transcribed.shuffled(given, seed + 1).texts != found.texts


def test_labels_leave_unknown_characters_out_and_count_them():
    held = Transcribed(clips=[], texts=["ab ba", "a7b 7", "b"], dropped={}, source="")
    labels, unknown = transcribed.labels_of(held, CharacterTokenizer("ab "))
    assert unknown == {"7": 2}
    tokenizer = CharacterTokenizer("ab ")
    assert [tokenizer.decode(ids) for ids in labels] == ["ab ba", "ab", "b"]


@pytest.mark.parametrize("speakers", [3, 9])
def test_few_speakers_of_labels_are_divided_by_speaker(tmp_path, speakers):
    folder = write_locale(tmp_path / "xx", {"validated": rows_of(speakers, ["si", "no", "forse"])})
    splits = load(folder, rules=None)
    heard = [set(column(held.clips, "client_id")) for held in splits.values()]
    assert sum(map(len, heard)) == len(set.union(*heard)) == speakers
    assert all(set(held.texts) == {"si", "no", "forse"} for held in splits.values())
