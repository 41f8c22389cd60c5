"""The study of few labels: its arms and commands, and numbers from made-up runs."""

import pytest

from experiments.cli import main as cli
from experiments.process.files import write_json
from experiments.study.few_labels import arms as plan
from experiments.study.few_labels import report, results

STUDY = {
    "seeds": 3,
    "rows": [
        {"encoder": "best-rq", "training": training, "seed": seed, "audio_seconds": 16e3}
        for training in ("ten clients", "centralised")
        for seed in range(3)
    ],
}
LEVELS = {
    "log-mel": 0.4,
    "best-rq, scratch": 0.5,
    "best-rq, ten clients": 0.6,
    "best-rq, centralised": 0.65,
}
# What a seed adds to a pre-trained arm's level, and what it adds to the others.
NOISE = {True: (0.01, 0.0, -0.01), False: (0.0, 0.0, 0.0)}


def finished(arm, seed):
    level = LEVELS[arm.name] + NOISE[arm.pretrained is not None][seed]
    speakers = [{"speaker": "a", "accuracy": level - 0.1}, {"speaker": "b", "accuracy": level + 0.1}]
    held = {"test": {"accuracy": level}, "per_speaker": speakers, "updates": 600, "best_update": 90}
    data = {split: {"clips": clips} for split, clips in (("train", 40), ("dev", 50), ("test", 60))}
    return held | {"train_seconds": 9.0}, data


@pytest.fixture
def result():
    chosen = plan.arms(STUDY)
    made = results.collect(chosen, {(arm, seed): finished(arm, seed) for seed in range(3) for arm in chosen})
    provenance = {
        "command": "w2v-jax study few-labels",
        "commit": "abc",
        "cores": 2,
        "device": "1 x cpu",
        "versions": {"jax": "0"},
        "xla_flags": "",
    }
    return made | {"labels": 10.0, "seeds": 3, "audio_seconds": 16e3, "provenance": provenance}


def test_every_pretraining_is_held_against_scratch_and_log_mel(tmp_path):
    chosen = plan.arms(STUDY)
    assert [arm.name for arm in chosen] == list(LEVELS)
    assert [arm.name for arm in plan.arms(STUDY, trainings=["centralised"])] == [
        "log-mel",
        "best-rq, scratch",
        "best-rq, centralised",
    ]
    assert plan.pairs(chosen) == [
        (name, other)
        for name in ("best-rq, ten clients", "best-rq, centralised")
        for other in ("best-rq, scratch", "log-mel")
    ]
    words = {
        arm.name: " ".join(plan.finetuning(arm, 2, "words", 10.0, tmp_path / "r", (), tmp_path).arguments)
        for arm in chosen
    }
    common = "finetune --task keywords --data words --labels 10 --seed 2 "
    assert words == {
        "log-mel": common + "--features log-mel",
        "best-rq, scratch": common + "--model best-rq-tiny",
        "best-rq, ten clients": common + f"--init {tmp_path}/r/cells/best-rq-ten-clients-2",
        "best-rq, centralised": common + f"--init {tmp_path}/r/cells/best-rq-centralised-2",
    }


def test_differences_are_paired_and_corrected(result):
    gain = result["comparisons"][0]
    assert (gain["one"], gain["other"]) == ("best-rq, ten clients", "best-rq, scratch")
    assert gain["by_seed"]["mean"] == pytest.approx(0.1)
    # Student's t of 1 - 0.05 / 8 with two degrees of freedom is 8.860; times 0.01 / sqrt(3).
    assert gain["by_seed"]["half"] == pytest.approx(0.05115, abs=2e-5)
    # Both speakers gain alike.
    assert gain["by_speaker"]["mean"] == pytest.approx(0.1)
    assert gain["by_speaker"]["half"] == pytest.approx(0.0, abs=1e-9)
    assert result["clips"] == {"train": 40, "dev": 50, "test": 60}


def test_the_report_says_what_was_learnt(result, tmp_path):
    text = report.markdown(result)
    assert "- best-rq, ten clients is better than best-rq, scratch: +10.0 ± 5.1 points." in text
    assert "same 40 labelled clips" in text
    assert "16,000 s" in text
    report.draw(result, tmp_path / "few-labels.png")
    assert (tmp_path / "few-labels.png").stat().st_size > 5_000


def test_bad_input_names_what_would_be_right(tmp_path, capfd):
    write_json(tmp_path / "representations.json", STUDY)
    given = ["--data", str(tmp_path), "--representations"]
    for words, told in (
        ([*given, str(tmp_path / "absent")], "give the folder of a finished `w2v-jax study representations`"),
        ([*given, str(tmp_path), "--seeds", "4"], "has 3"),
        (
            [*given, str(tmp_path), "--encoders", "wav2vec2"],
            "it has best-rq ten clients, best-rq centralised",
        ),
        ([*given, str(tmp_path), "--labels", "0"], "--labels must be above 0"),
    ):
        assert cli.main(["study", "few-labels", *words]) == 2
        assert told in capfd.readouterr().err
