"""Splits are the same for pre-training and fine-tuning, and excluded speakers are really excluded."""

import pytest

from experiments.data import partitions, splits, transcribed
from tests.experiments.data.test_transcribed import SENTENCES, rows_of, write_locale
from w2v_jax.data.common_voice import column
from w2v_jax.data.prepared.preparation import prepare
from w2v_jax.errors import CorpusError
from w2v_jax.text.rules import TextRules


def fine_tuning(data):
    found = transcribed.load(data, TextRules(), min_samples=400, max_samples=10**6, seed=3)
    return {split: set(column(held.clips, "client_id")) for split, held in found.items()}


def pre_training(data, exclude=("dev", "test"), split="validated", min_samples=500):
    return splits.load_for_pretraining(
        data, split, exclude_speakers_of=exclude, min_samples=min_samples, seed=3, clients=2
    )


def rows(speakers, prefix="a", first=0):
    return [(f"s{first + int(s[1:]):02d}", *rest) for s, *rest in rows_of(speakers, SENTENCES[:2], prefix)]


TABLES = {
    "validated alone": {"validated": rows(20)},
    "train alone": {"train": rows(20)},
    "train and validated": {"train": rows(20), "validated": rows(20) + rows(5, "b", 20)},
    "test made": {"validated": rows(20), "dev": rows(20)[:4]},
    "the release's own": {
        "train": rows(12), "dev": rows(2, "d", 12), "test": rows(2, "t", 14), "validated": rows(12),
    },
}  # fmt: skip


@pytest.mark.parametrize("tables", TABLES)
@pytest.mark.parametrize("prepared", [False, True], ids=["folder", "prepared"])
def test_pre_training_never_hears_speakers_that_fine_tuning_is_scored_on(tmp_path, tables, prepared):
    folder = write_locale(tmp_path / "xx", TABLES[tables])
    data = str(prepare(folder, tmp_path / "out") if prepared else folder)
    scored = fine_tuning(data)
    corpus, others = pre_training(data)
    heard = set(column(corpus.clips, "client_id"))
    assert heard
    assert scored["dev"]
    assert not heard & (scored["dev"] | scored["test"])
    assert partitions.overlap(corpus.clips, others) == {"dev": 0, "test": 0}
    assert others == {"dev": scored["dev"], "test": scored["test"]}
    without, others = pre_training(data, exclude=())
    assert partitions.overlap(without.clips, others) == {
        split: len(scored[split] & set(column(without.clips, "client_id"))) for split in ("dev", "test")
    }


def test_the_synthetic_corpus_keeps_its_dev_and_test_speakers_out():
    whole, others = pre_training(None, exclude=())
    assert all(others.values())
    corpus, _ = pre_training(None)
    left = set(column(whole.clips, "client_id")) - others["dev"] - others["test"]
    assert set(column(corpus.clips, "client_id")) == left


def test_clips_too_short_for_pre_training_do_not_change_the_splits(tmp_path):
    short = [(s, path, text, 450) if s == "s03" else (s, path, text, n) for s, path, text, n in rows(20)]
    folder = str(write_locale(tmp_path / "xx", {"validated": short}))
    corpus, others = pre_training(folder)
    assert others["dev"] == fine_tuning(folder)["dev"]
    assert "s03" not in set(column(corpus.clips, "client_id"))


def test_splits_by_sentence_cannot_be_excluded_by_speaker(tmp_path):
    folder = str(write_locale(tmp_path / "xx", {"validated": rows_of(3, SENTENCES)}))
    with pytest.raises(CorpusError, match=r"--exclude-speakers-of dev: .* by sentence") as caught:
        pre_training(folder)
    assert "\n" not in str(caught.value)
    _, others = pre_training(folder, exclude=())
    assert len(others["dev"]) == 3


def test_overlaps_that_are_not_known_are_null(tmp_path):
    few = str(write_locale(tmp_path / "few", {"validated": rows_of(2, SENTENCES[:2])}))
    corpus, others = pre_training(few, exclude=())
    assert partitions.overlap(corpus.clips, others) == {"dev": None, "test": None}
    with pytest.raises(CorpusError, match=r"--exclude-speakers-of dev: .*too few"):
        pre_training(few)
    tables = {"validated": rows(12), "other": rows(12)}
    other = str(write_locale(tmp_path / "other", tables))
    assert pre_training(other, exclude=(), split="other")[1] == {"dev": None, "test": None}
    corpus, others = pre_training(other, split="other")
    assert others["dev"] == fine_tuning(other)["dev"]
    assert not set(column(corpus.clips, "client_id")) & others["dev"]


def test_fine_tuning_counts_a_skip_in_its_own_split_alone(tmp_path):
    tables = {"train": rows(12), "dev": rows(12)[:2], "test": rows(12)[2:4], "validated": rows(12)}
    folder = write_locale(tmp_path / "xx", tables)
    for data in (folder, prepare(folder, tmp_path / "out")):
        found = transcribed.load(str(data), TextRules(), min_samples=400, max_samples=10**6, seed=0)
        paths = {split: set(column(held.clips, "path")) for split, held in found.items()}
        assert not paths["train"] & (paths["dev"] | paths["test"])
        assert [found[split].dropped for split in ("train", "dev", "test")] == [{"in two splits": 4}, {}, {}]
