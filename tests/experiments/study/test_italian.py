"""Recorded Italian prompts, skipped where they are not: texts, made splits, and a few updates."""

import unicodedata

import pytest

from experiments.cli import main as cli
from experiments.data import transcribed
from experiments.data.splits import COARSEST_RULES
from experiments.process.files import read_json
from tests.experiments.recognition.test_finetune import transcripts
from w2v_jax.config import SAMPLE_RATE_HZ, TINY
from w2v_jax.data.common_voice import column, read_table
from w2v_jax.text.rules import TextRules, normalise
from w2v_jax.text.storage import load_tokenizer


@pytest.fixture(scope="module")
def prompts(corpora):
    folder = corpora / "italian_prompts" / "it"
    if not folder.is_dir():
        pytest.skip(f"no recorded Italian in {folder}")
    return folder


def load(folder, rules):
    return transcribed.load(
        str(folder),
        rules,
        min_samples=TINY.receptive_field_samples,
        max_samples=8 * SAMPLE_RATE_HZ,
        seed=0,
    )


def test_accents_and_apostrophes_are_kept_or_folded(prompts):
    sentences = [row.sentence for row in read_table(prompts).rows]
    kept = [normalise(sentence, TextRules()) for sentence in sentences]
    folded = [normalise(sentence, COARSEST_RULES) for sentence in sentences]
    assert {"è", "à", "'"} <= set("".join(kept))
    alphabet = set("".join(folded)) - {" "}
    assert all(char.isascii() and char.isalnum() for char in alphabet), sorted(alphabet)
    assert len(alphabet) >= 20
    by_sentence = dict(zip(sentences, zip(kept, folded, strict=True), strict=True))
    # One of each: what has an apostrophe or an accent differs, and loses no letter but by its accent.
    apostrophe = next(sentence for sentence in sentences if "l'" in sentence)
    assert "l'" in by_sentence[apostrophe][0]
    assert "l " in by_sentence[apostrophe][1]
    accented = next(sentence for sentence in sentences if "è" in sentence)
    assert "è" in by_sentence[accented][0]
    assert "è" not in by_sentence[accented][1]
    for text, plain in by_sentence.values():
        bare = unicodedata.normalize("NFD", text.replace("'", " "))
        bare = "".join(char for char in bare if not unicodedata.combining(char))
        assert " ".join(bare.split()) == plain


@pytest.mark.slow
def test_made_splits_share_no_sentence_under_any_rules(prompts):
    rows = len(read_table(prompts).rows)
    splits = load(prompts, TextRules())
    assert {held.source for held in splits.values()} == {"made from validated.tsv"}
    counts = {split: len(held.clips) for split, held in splits.items()}
    assert sum(counts.values()) + sum(splits["train"].dropped.values()) == rows
    assert all(counts[split] >= 30 for split in ("dev", "test"))
    # The prompts have 15 pairs that differ in case or punctuation alone.
    texts = [{normalise(text, COARSEST_RULES) for text in held.texts} for held in splits.values()]
    assert len(set.union(*texts)) == sum(map(len, texts))
    again = load(prompts, COARSEST_RULES)
    for split, held in splits.items():
        assert list(column(again[split].clips, "path")) == list(column(held.clips, "path"))


@pytest.mark.slow
def test_a_few_updates_on_italian_and_a_clip_of_it(prompts, tmp_path, capfd):
    out = tmp_path / "run"
    argv = ["finetune", "--data", str(prompts), "--out", str(out), "--updates", "4", "--batch-seconds", "8"]
    # At such a rate the head says something soon; what it says does not matter here.
    argv += ["--head-optimizer", "adam", "--head-learning-rate", "0.1", "--head-blocks", "1"]
    assert cli.main(argv) == 0
    tokenizer, rules = load_tokenizer(out)
    assert {"è", "à", "'", " "} <= set(tokenizer.alphabet)
    assert rules == TextRules()
    rows = transcripts(out)
    assert len(rows) == read_json(out / "results.json")["test"]["utterances"] >= 30
    assert any("è" in row["reference"] or "'" in row["reference"] for row in rows)
    longest = max(rows, key=lambda row: len(row["hypothesis"]))
    file = prompts / "clips" / longest["path"]
    capfd.readouterr()
    assert cli.main(["transcribe", str(file), "--run", str(out)]) == 0
    assert capfd.readouterr().out == f"{file}\t{longest['hypothesis']}\n"
