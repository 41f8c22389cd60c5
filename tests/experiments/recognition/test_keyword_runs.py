"""finetune --task keywords end to end: scores that agree, runs that continue, bad input in one line."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest
import soundfile

from experiments.cli import main as cli
from experiments.data.keywords import labelled_share
from experiments.data.transcribed import Transcribed
from experiments.models import encoders
from experiments.options.errors import UsageError
from experiments.process.files import read_json
from experiments.recognition.finetune import ABSENT_SETTINGS, FinetuneArguments, default_folder, resolve
from experiments.recognition.keyword_scoring import Classified
from experiments.recognition.keyword_task import best_line
from experiments.report.statistics import interval
from experiments.runs.folder import RunFolder, read_metrics
from tests.configs import SMALL
from tests.experiments.cli.test_commands import fails
from tests.experiments.recognition.test_finetune import arrays, assert_same_arrays, cut_off, untimed
from tests.experiments.runs.test_events import assert_events_are_metrics
from tests.w2v_jax.interop import made
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.common_voice import Clip
from w2v_jax.data.tables import ClipRow
from w2v_jax.interop.huggingface_names import ENCODER

# A word is a tone in the first half of a clip, with noise all along.
TONES_HZ = {"low": 300, "middle": 900, "high": 2700}
SAMPLES, TAKES = 6_400, 3
SPEAKERS = {"train": ("a", "b", "c"), "dev": ("d",), "test": ("e", "f")}
RUN = ["--task", "keywords", "--batch-seconds", "8", "--seed", "3"]
LOG_MEL = [
    *RUN, "--features", "log-mel", "--updates", "12", "--evaluate-every", "4", "--head-learning-rate", "0.05",
    "--no-augment",
]  # fmt: skip
ENCODED = [
    *RUN, "--updates", "4", "--evaluate-every", "2", "--pooling", "attentive", "--layers", "weighted",
    "--label-smoothing", "0.1", "--labels", "50", "--head-blocks", "1", "--head-width", "8", "--no-augment",
]  # fmt: skip
# Frames of 20 ms from few and short convolutions.
FOLDER = SMALL.replace(conv_channels=(8,) * 3, conv_kernels=(10, 8, 4), conv_strides=(10, 8, 4), num_layers=1)


def write_corpus(folder, speakers=SPEAKERS, more=(), words=TONES_HZ):
    """Tables by split, and `more` rows (split, speaker, file, word)."""
    (folder / "clips").mkdir(parents=True)
    rows = [
        (split, speaker, f"{speaker}_{word}_{take}.flac", word)
        for split, names in speakers.items()
        for speaker in names
        for word in words
        for take in range(TAKES)
    ]
    for number, (_, _, path, word) in enumerate([*rows, *more]):
        rng, time = np.random.default_rng(number), np.arange(SAMPLES) / SAMPLE_RATE_HZ
        tone = np.sin(2 * np.pi * TONES_HZ.get(word, 100) * time) * (np.arange(SAMPLES) < SAMPLES // 2)
        samples = 0.3 * tone + 0.01 * rng.standard_normal(SAMPLES)
        soundfile.write(folder / "clips" / path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
    for split in (*speakers, "validated"):
        with (folder / f"{split}.tsv").open("w") as table:
            table.write("client_id\tpath\tsentence\n")
            for place, speaker, path, word in (*rows, *more):
                if split in (place, "validated"):
                    table.write(f"{speaker}\t{path}\t{word}\n")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Write a corpus with a word in test that nobody says in train."""
    return write_corpus(
        tmp_path_factory.mktemp("keywords") / "xx", more=[("test", "e", "e_buzz.flac", "buzz")]
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return made.write_folder(tmp_path_factory.mktemp("hf") / "model", FOLDER, ENCODER)


def finetune(corpus, out, *options):
    assert cli.main(["finetune", "--data", str(corpus), "--out", str(out), *options]) == 0
    return out


@pytest.fixture(scope="module")
def log_mel(corpus, tmp_path_factory):
    return finetune(corpus, tmp_path_factory.mktemp("log-mel") / "run", *LOG_MEL)


@pytest.fixture(scope="module")
def encoded(corpus, encoder, tmp_path_factory):
    return finetune(corpus, tmp_path_factory.mktemp("encoded") / "run", *ENCODED, "--init", f"hf:{encoder}")


def predictions(run):
    with (run / "predictions.tsv").open(newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def test_tones_are_learnt_and_scores_agree_with_predictions(log_mel):
    lines, result, rows = (
        read_metrics(log_mel / "metrics.jsonl"),
        read_json(log_mel / "results.json"),
        predictions(log_mel),
    )
    assert [line["update"] for line in lines] == [4, 8, 12]
    assert {"loss", "accuracy", "dev_loss", "dev_accuracy", "audio_seconds"} <= lines[0].keys()
    assert lines[-1]["dev_accuracy"] == 1.0
    assert [row["path"] for row in rows if row["class"] != row["guess"]] == ["e_buzz.flac"]
    test = result["test"]
    assert (test["clips"], test["correct"], test["of_unseen_classes"]) == (19, 18, 1)
    assert test["accuracy"] == 18 / 19
    assert result["per_speaker"] == [
        {"speaker": "e", "clips": 10, "accuracy": 0.9},
        {"speaker": "f", "clips": 9, "accuracy": 1.0},
    ]
    assert test["speaker_mean"] == pytest.approx(0.95)
    assert test["speaker_interval"] == pytest.approx(12.706 * 0.05, rel=1e-4)  # Student's t of one degree
    guess = next(row["guess"] for row in rows if row["class"] == "buzz")
    assert result["confusions"] == [{"class": "buzz", "guess": guess, "clips": 1}]
    assert result["per_class"][0] == {"class": "buzz", "clips": 1, "accuracy": 0.0}
    assert all(float(row["probability"]) > 1 / 3 for row in rows)
    best = best_line(lines, "accuracy")
    assert result["best_update"] == best["update"]
    assert result["dev"] == {name: best[f"dev_{name}"] for name in ("accuracy", "loss")}
    assert_events_are_metrics(log_mel, "update")


def test_the_report_says_what_the_results_say(log_mel):
    report = (log_mel / "report.md").read_text()
    assert "\n## Is this run healthy?\n" in report
    assert (
        "- Test accuracy is **94.7 % of 19 clips (mean over 2 speakers 95.0 % ± 63.5, 95 % t interval)**"
        in report
    )
    assert "1 test clips are of classes that no training clip has" in report
    assert "mean pooling of 6 parts" in report
    for picture in ("curves", "confusion"):
        assert (log_mel / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    assert 'src="confusion.png"' not in (log_mel / "report.html").read_text()


def test_transcribe_names_the_class_and_its_probability(corpus, log_mel, tmp_path, capfd):
    rows = {row["path"]: row for row in predictions(log_mel)}
    files = [corpus / "clips" / path for path in list(rows)[:3]]
    long = tmp_path / "long.wav"
    samples, _ = soundfile.read(files[0])
    soundfile.write(long, np.tile(samples, 30), SAMPLE_RATE_HZ, subtype="PCM_16")
    capfd.readouterr()
    assert (
        cli.main(["transcribe", *map(str, files), str(long), "--run", str(log_mel), "--window-seconds", "8"])
        == 0
    )
    printed = capfd.readouterr()
    lines = [line.split("\t") for line in printed.out.splitlines()]
    assert [line[0] for line in lines] == [*map(str, files), str(long)]
    for file, line in zip(files, lines, strict=False):
        assert line[1] == rows[file.name]["guess"]
        assert float(line[2]) == pytest.approx(float(rows[file.name]["probability"]), abs=2e-3)
    assert "heard in 2 windows" in printed.err


def test_a_cut_off_run_continues_to_the_same_bits(corpus, log_mel, tmp_path, monkeypatch):
    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        cut_off(patch, "checkpoints", 8)
        assert cli.main(["finetune", "--data", str(corpus), "--out", str(out), *LOG_MEL]) == 130
    assert not (out / "results.json").exists()
    finetune(corpus, out, *LOG_MEL)
    assert untimed(read_metrics(out / "metrics.jsonl")) == untimed(read_metrics(log_mel / "metrics.jsonl"))
    assert untimed(read_json(out / "results.json")) == untimed(read_json(log_mel / "results.json"))
    for name in ("checkpoints", "best"):
        assert_same_arrays(arrays(out / name), arrays(log_mel / name))


def test_the_settings_reach_the_head_and_the_clips(encoded):
    held, data = read_json(encoded / "keywords.json"), read_json(encoded / "data.json")
    assert held["classes"] == ["high", "low", "middle"]
    head = held["head"]
    assert (head["pooling"], head["segments"], head["weighted_layers"]) == ("attentive", 1, True)
    assert (head["num_blocks"], head["width"], held["label_smoothing"]) == (1, 8, 0.1)
    assert data["train"]["clips"] == 3 * 5  # half of nine clips a word, rounded up
    found = arrays(encoded / "best")
    assert found["['parameters']['head']['layer_weights']"].shape == (2,)
    assert np.abs(found["['statistics']['input_norm']['mean']"]).max() > 0


def test_a_keyword_runs_encoder_is_what_a_run_begins_with(encoded, log_mel, capfd):
    source = encoders.load(str(encoded), None)
    expected = {
        name.removeprefix("['parameters']['encoder']"): value
        for name, value in arrays(encoded / "best").items()
        if name.startswith("['parameters']['encoder']")
    }
    found = jax.tree_util.tree_leaves_with_path(source.parameters)
    assert_same_arrays({jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in found}, expected)
    line = fails(capfd, "finetune", *RUN, "--init", str(log_mel))
    assert "is a keyword spotter on log-mel, without an encoder" in line


def test_watch_shows_accuracy(log_mel, capfd):
    assert cli.main(["watch", str(log_mel), "--once"]) == 0
    shown = capfd.readouterr().out
    assert "validation accuracy" in shown
    assert "keywords of column sentence" in shown
    assert "(best 100.0 % at" in shown


def clips_of(words, speakers=("a", "b")):
    rows = [
        ClipRow(client_id=s, path=f"{s}_{w}_{n}", sentence=w)
        for s in speakers
        for w in words
        for n in range(10)
    ]
    clips = [Clip(row=row, samples=np.zeros(10, np.int16)) for row in rows]
    return Transcribed(clips=clips, texts=[row.sentence for row in rows], dropped={}, source="made")


def test_shares_of_the_labels_are_balanced_nested_and_follow_the_seed():
    held = clips_of(("yes", "no", "up"))
    paths = {
        (share, seed): {clip.row.path for clip in labelled_share(held, share, seed).clips}
        for share in (0.01, 0.1, 0.5, 1.0)
        for seed in (0, 1)
    }
    for (share, _), kept in paths.items():
        counts = {word: sum(f"_{word}_" in path for path in kept) for word in ("yes", "no", "up")}
        assert set(counts.values()) == {max(1, round(20 * share))}
    assert paths[0.01, 0] < paths[0.1, 0] < paths[0.5, 0] < paths[1.0, 0]
    assert paths[0.1, 0] != paths[0.1, 1]


def test_accuracies_by_hand():
    held = dataclasses.replace(clips_of(("yes", "no"), speakers=("a", "b", "c")))
    probabilities = np.zeros((60, 2), np.float32)
    probabilities[:, 0] = [name == "no" for name in held.texts]
    probabilities[:10, 0] = 1  # speaker a says yes, and no is heard
    probabilities[20:25, 0] = 1  # speaker b, half of the time
    probabilities[:, 1] = 1 - probabilities[:, 0]
    found = Classified(held=held, classes=("no", "yes"), probabilities=probabilities, loss=0.5)
    scores = found.scores()
    assert scores["accuracy"] == 45 / 60
    assert [row["accuracy"] for row in found.by_speaker()] == [0.5, 0.75, 1.0]
    assert scores["speaker_interval"] == interval([0.5, 0.75, 1.0])
    assert found.by_class()[0] == {"class": "yes", "clips": 30, "accuracy": 0.5}
    assert found.confusions() == [{"class": "yes", "guess": "no", "clips": 15}]


def test_the_best_validation_by_accuracy_then_loss():
    lines = [{"dev_accuracy": a, "dev_loss": b} for a, b in ((0.5, 1.0), (0.7, 2.0), (0.7, None), (0.6, 0.5))]
    assert best_line(lines, "accuracy") is lines[1]
    assert best_line(lines, "loss") is lines[3]


# Bad input.


def fails_to_finetune(capfd, corpus, out, *options):
    capfd.readouterr()
    line = fails(capfd, "finetune", "--task", "keywords", "--data", str(corpus), "--out", str(out), *options)
    assert not (out / "config.json").exists()
    return line


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--column", "word"], "--column"),
        (["--column", "accent"], "needs the `accent` column"),
        (["--labels", "101"], "--labels is a percentage of the training clips, at most 100"),
        (["--labels", "0"], "--labels must be positive"),
        (["--label-smoothing", "1"], "--label-smoothing must be below 1"),
        (["--head-width", "64"], "--head-width has a meaning with --head-blocks alone"),
        (["--segments", "0"], "--segments must be positive"),
        (
            ["--select-by", "wer"],
            "--select-by wer has no meaning with --task keywords: give accuracy or loss",
        ),
        (
            ["--model", "best-rq-tiny", "--freeze", "feature-encoder"],
            "--freeze feature-encoder has no meaning",
        ),
        (["--tokens", "pieces"], "--tokens has a meaning with --task recognition alone"),
        (["--features", "log-mel", "--layers", "weighted"], "has no layers: leave --layers out"),
    ],
)
def test_mistakes_are_one_line(corpus, capfd, tmp_path, options, expected):
    assert expected in fails_to_finetune(capfd, corpus, tmp_path / "run", *options)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"more": [("train", "a", "a_once.flac", "once")]},
            "1 of 4 classes with one training clip (such as once)",
        ),
        ({"words": ("low",)}, "has one class in the training clips (low)"),
        ({"words": ("",)}, "no clip of train has a label"),
        ({"speakers": {"train": ("a",)}}, "one speaker"),
    ],
)
def test_corpora_that_cannot_be_learnt_are_one_line(capfd, tmp_path, changes, expected):
    folder = write_corpus(tmp_path / "xx", **changes)
    assert expected in fails_to_finetune(capfd, folder, tmp_path / "run")


def test_words_that_nobody_says_in_train_are_one_line(capfd, tmp_path):
    folder = write_corpus(tmp_path / "xx")
    rows = (folder / "test.tsv").read_text()
    (folder / "test.tsv").write_text(
        rows.replace("\tlow", "\tnew").replace("\tmiddle", "\tnew").replace("\thigh", "\tnew")
    )
    line = fails_to_finetune(capfd, folder, tmp_path / "run")
    assert (
        "no clip of test has a class that a training clip has (column `sentence`; test: new; train: high,"
        in line
    )


def test_keyword_options_have_no_meaning_in_recognition(capfd):
    for option in (
        "--pooling=mean",
        "--labels=10",
        "--column=age",
        "--layers=last",
        "--label-smoothing=0.1",
    ):
        line = fails(capfd, "finetune", option)
        assert f"{option.split('=')[0]} has a meaning with --task keywords alone" in line
    assert "--select-by accuracy has no meaning" in fails(capfd, "finetune", "--select-by", "accuracy")


def test_defaults_by_task_and_folders_of_older_versions(tmp_path):
    recognition = resolve(FinetuneArguments())
    wanted = {"head_blocks": 3, "head_optimizer": "adadelta", "schedule": "newbob", "select_by": "wer"}
    assert {name: recognition[name] for name in wanted} == wanted
    older = {name: value for name, value in recognition.items() if name not in ABSENT_SETTINGS}
    (tmp_path / "config.json").write_text(json.dumps({"settings": older, "provenance": {}}))
    RunFolder(tmp_path, recognition, {}, ABSENT_SETTINGS).close()
    keywords = resolve(FinetuneArguments(task="keywords"))
    assert (keywords["head_blocks"], keywords["schedule"], keywords["segments"]) == (0, "tri-stage", 1)
    assert resolve(FinetuneArguments(task="keywords", features="log-mel"))["segments"] == 6
    assert default_folder(keywords).name == "keywords-scratch"
    with pytest.raises(UsageError):
        resolve(FinetuneArguments(segments=2))
