"""Logs that the other tools' own writers made: what the doctor reads in them, and says.

The files in tool_logs were made so:

- fairseq 0.12.2: numbers of invented runs went through its meters and its JSON and simple progress bars,
  called as fairseq_cli/train.py calls them, with the log formats of the console and of hydra. Fine-tuning
  validates on dev_other, as fairseq's recipes do.
- SpeechBrain 1.1.2: FileTrainLogger, with the arguments of its wav2vec 2.0 and CTC recipes.
- transformers 5.23: the Trainer trained a linear classifier for 24 steps; in one run the loss became NaN.
"""

from pathlib import Path

import pytest

from experiments.doctor.diagnosis import diagnose
from experiments.doctor.reading import read

LOGS = Path(__file__).parent / "tool_logs"
LN2 = 0.6931471805599453


@pytest.mark.parametrize("form", ["hydra-json", "console-simple"])
def test_fairseq_pre_training(form):
    curves = read(LOGS / f"fairseq-pretraining-{form}.log")
    assert (curves.writer, curves.kind, curves.steps) == ("fairseq", "wav2vec2", 60)
    assert [point["step"] for point in curves.points] == [10, 20, 30, 40, 50, 60]
    assert curves.first("loss") == pytest.approx(6.171 * LN2)
    assert curves.series("heldout_loss")[0] == [20, 40, 60]
    assert curves.first("heldout_loss") == pytest.approx(5.262 * LN2)
    assert (curves.first("heldout_accuracy"), curves.first("heldout_codes")) == (0.209, 137.216)
    assert (curves.peak_rate, curves.first("gradient_norm")) == (5e-4, 0.793)
    assert not [held for held in diagnose(curves).findings if held.severity == "broken"]


@pytest.mark.parametrize("form", ["hydra-json", "console-simple"])
def test_fairseq_fine_tuning_on_a_subset_of_another_name(form):
    curves = read(LOGS / f"fairseq-finetuning-{form}.log")
    assert (curves.kind, curves.steps) == ("ctc", 60)
    assert curves.series("wer")[0] == [20, 40, 60]
    assert (curves.first("wer"), curves.first("cer")) == (pytest.approx(0.71653), pytest.approx(0.44933))
    assert curves.first("heldout_loss") == pytest.approx(2.756 * LN2)
    assert curves.first("loss") == pytest.approx(4.113 * LN2)
    assert diagnose(curves).verdict == "healthy"


def test_of_several_subsets_the_first_is_held_out(tmp_path):
    lines = (LOGS / "fairseq-finetuning-hydra-json.log").read_text().splitlines()
    other = [line.replace("dev_other", "test_clean") for line in lines if "dev_other" in line]
    path = tmp_path / "train.log"
    path.write_text("\n".join([*lines, *(line.replace(': "71.653"', ': "1.0"') for line in other)]))
    curves = read(path)
    assert curves.first("wer") == pytest.approx(0.71653)
    assert curves.notes[-1] == (
        "The log validates on dev_other, test_clean; the held-out values are those of dev_other."
    )


def test_speechbrain_pre_training():
    curves = read(LOGS / "speechbrain-pretraining.txt")
    assert (curves.writer, curves.kind, curves.unit) == ("SpeechBrain", "wav2vec2", "updates")
    assert curves.series("heldout_accuracy") == (
        [18_223, 36_446, 54_669, 72_892],
        [0.377, 0.473, 0.531, 0.566],
    )
    assert (curves.first("loss"), curves.last("heldout_loss"), curves.peak_rate) == (18_100, 1_640, 5e-4)


def test_speechbrain_recognition():
    curves = read(LOGS / "speechbrain-ctc.txt")
    assert (curves.kind, curves.unit, curves.steps) == ("ctc", "epochs", 6)
    assert (curves.first("wer"), curves.last("cer")) == (pytest.approx(0.6246), pytest.approx(0.0799))
    assert (curves.first("loss"), curves.last("heldout_loss")) == (2.22, 0.624)
    assert diagnose(curves).verdict == "healthy"


def test_transformers_that_learns():
    curves = read(LOGS / "transformers-learns.json")
    assert (curves.writer, curves.kind, curves.steps, curves.finished) == (
        "transformers",
        "keywords",
        24,
        True,
    )
    assert [point["step"] for point in curves.points] == [4, 8, 12, 16, 20, 24]
    assert len(curves.values("loss")) == 6
    assert len(curves.values("heldout_loss")) == len(curves.values("heldout_accuracy")) == 3
    assert "broken" not in [held.severity for held in diagnose(curves).findings]


def test_transformers_that_hides_a_loss_which_is_not_finite():
    curves = read(LOGS / "transformers-loses-its-loss.json")
    assert curves.not_finite("loss") == [16, 20, 24]  # the Trainer wrote 0
    assert curves.not_finite("heldout_loss") == [16, 24]
    diagnosis = diagnose(curves)
    assert (diagnosis.verdict, diagnosis.findings[0].name) == ("broken", "loss not finite")
