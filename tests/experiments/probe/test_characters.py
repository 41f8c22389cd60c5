"""Probes that write characters: clips and transcripts, frames of 40 ms, scores, the command, bad input."""

import numpy as np
import pytest

from experiments.cli import main as cli
from experiments.probe import encoded, run, transcribed_clips
from experiments.probe.characters import scored
from experiments.probe.metrics import CHARACTER_ERROR_RATE
from experiments.process.files import read_json
from tests.configs import SMALL
from tests.experiments.cli.test_commands import fails
from tests.experiments.probe import corpora
from tests.experiments.probe.test_probe import BEST_RQ, clip
from tests.w2v_jax.interop.made import write_folder
from w2v_jax.interop.huggingface_names import PRE_TRAINING
from w2v_jax.recognition import character_probes
from w2v_jax.text.rules import TextRules

SENTENCES = ("AB CA", "BC AB", "CAB B", "A CB!", "BA CA", "C BAC")


def rows_with(**changes):
    made = {split: [(s, text) for s in names for text in SENTENCES] for split, names in SPEAKERS.items()}
    return made | changes


SPEAKERS = {"train": "abcd", "dev": "e", "test": "fg"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return f"hf:{write_folder(tmp_path_factory.mktemp('model') / 'small', SMALL, PRE_TRAINING)}"


def made(*texts, **changes):
    """Clips of train, dev and test in turn, each with 25 frames."""
    clips = [clip(number, 1.0, speaker="ab"[number % 2], word=text) for number, text in enumerate(texts)]
    places = np.array([("train", "dev", "test")[number % 3] for number in range(len(texts))])
    settings = {"rules": TextRules(), "min_samples": 1_000, "num_frames": lambda n: n // 640}
    return transcribed_clips.transcribed(clips, places, **settings | changes)


def test_clips_that_cannot_be_written_are_left_out_and_counted():
    # 13 equal characters need 25 frames, 14 need 27.
    found = made("a" * 13, "B.", "Ç a-b!", "a" * 14, "", "?!", "A Ç", "b", "abz")
    assert found.texts.tolist() == ["a" * 13, "b", "ç a b", "a ç", "b", "abz"]
    assert found.places.tolist() == ["train", "dev", "test", "train", "dev", "test"]
    assert found.left_out == {
        "without a sentence": 1,
        "without a letter or digit": 1,
        "with more characters than frames": 1,
    }
    assert found.tokenizer.alphabet == " aç"
    assert found.notes == (
        "1 clips have more characters than an arm has frames: they are left out for all arms",
        "characters of dev that train lacks count as errors of every arm: 'b' (2)",
        "characters of test that train lacks count as errors of every arm: 'b' (2), 'z' (1)",
    )


@pytest.mark.parametrize("config", [SMALL, BEST_RQ, None], ids=["wav2vec2", "best-rq", "log-mel"])
def test_every_arm_has_frames_of_40_ms(config, monkeypatch):
    monkeypatch.setattr(encoded, "BATCH_SECONDS", 4)
    clips = [clip(0, 0.5), clip(1, 0.4)]
    if config is None:
        frames, wide = encoded.log_mel_frames(clips), 320
    else:
        frames = encoded.encoder_frames(config, run.random_parameters(config, 0), clips)
        wide = config.hidden_dim * 640 // config.frame_samples
    counts = encoded.num_character_frames(config, np.array([8_000, 6_400]))
    assert [held.shape for held in frames.of_clips] == [(len(frames.layers), n, wide) for n in counts]
    assert all(held.dtype == np.float16 for held in frames.of_clips)


def test_frames_that_stand_side_by_side_keep_their_order(monkeypatch):
    monkeypatch.setattr(encoded, "BATCH_SECONDS", 1)
    one = [clip(0, 0.5)]
    whole = encoded.log_mel_frames(one).of_clips[0][0]
    pooled = encoded.log_mel_features(one)["as computed"][0].reshape(6, 160).mean(0)
    # 24 frames of 20 ms are 12 of 40 ms; their mean is that of the segments.
    np.testing.assert_allclose(whole.reshape(24, 160).astype(np.float32).mean(0), pooled, rtol=2e-3)
    assert np.abs(whole[:, :160] - whole[:, 160:]).mean() > 0.01


def test_error_rates_add_up_characters_and_pair_speakers():
    found = made("abcd", "ab", "abcd", "ab", "ab", "ab", "ab", "ab", "ab")
    score = scored(["ab", "b", ""], ["abcd", "", "ac"], found)
    # Of test, speaker a says "abcd" and "ab" (one edit of six characters), b says "ab" (two of two).
    assert score["by_speaker"] == {"a": pytest.approx(1 / 6), "b": 1.0}
    assert (score["edits"], score["characters"]) == (3, 8)
    assert score[CHARACTER_ERROR_RATE.key] == pytest.approx(3 / 8)
    assert score[CHARACTER_ERROR_RATE.dev_key] == pytest.approx(3 / 6)
    assert score["transcripts"] == [("abcd", "abcd"), ("ab", ""), ("ab", "ac")]


def test_the_command_compares_error_rates(model, tmp_path, capsys, monkeypatch):
    for name, value in {"EPOCHS": 1, "LEAST_UPDATES": 40, "BATCH_FRAMES": 96}.items():
        monkeypatch.setattr(character_probes, name, value)
    monkeypatch.setattr(character_probes, "LEARNING_RATE", 3e-2)
    monkeypatch.setattr(encoded, "SHAPES", 1)
    data = corpora.write_sentences(tmp_path / "xx", rows_with())
    out = tmp_path / "out"
    argv = ["probe", model, "--data", str(data), "--task", "characters", "--heads", "weighted-sum"]
    assert cli.main([*argv, "--labels", "50", "--out", str(out)]) == 0
    assert "4 characters; train: 24 clips of 4 speakers" in capsys.readouterr().out
    result = read_json(out / "result.json")
    assert (result["column"], result["classes"]) == ("sentence", [" ", "a", "b", "c"])
    log_mel, own = result["arms"]["log-mel"], result["arms"][model]
    assert log_mel["linear"]["character_error_rate"] < 0.3
    best = min(held["linear"]["dev_character_error_rate"] for held in own["layers"].values())
    assert own["linear"]["dev_character_error_rate"] == best
    assert own["budgets"][0]["clips"] == 12
    gain = own["gain"]["weighted_sum"]["log-mel"]["mean"]
    both = [arm["weighted_sum"]["by_speaker"] for arm in (own, log_mel)]
    assert gain == pytest.approx(np.mean([both[0][name] - both[1][name] for name in both[0]]))
    assert sum(own["weighted_sum"]["weights"].values()) == pytest.approx(1.0)
    text = (out / "result.md").read_text()
    assert "lower is better" in text
    assert "| cab b" in text
    assert (out / "result.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        (rows_with(train=[("a", "")], dev=[("b", "")], test=[("c", "")]), [], "has no sentence: --task char"),
        (rows_with(test=[("f", "?!")]), [], "no clip of test can be used (1 without a letter or digit)"),
        ({split: [("a", "AB")] for split in SPEAKERS}, [], "has one speaker: a probe is scored on speakers"),
        ({"train": [("a", "AB C")]}, [], "and 1 speaker in train.tsv: too few to set some aside"),
        (rows_with(), ["--column", "accent"], "--column has a meaning with --task keywords alone"),
    ],
)
def test_bad_input_is_one_line(rows, options, expected, model, tmp_path, capfd):
    data = corpora.write_sentences(tmp_path / "xx", rows)
    assert expected in fails(capfd, "probe", model, "--data", str(data), "--task", "characters", *options)
