"""The healthy ranges that are printed beside a run's numbers agree with the doctor's verdicts."""

import dataclasses
import math

import pytest

from experiments.doctor.curves import Curves
from experiments.doctor.diagnosis import diagnose
from experiments.doctor.healthy_ranges import of_round, of_validation, ranges, standing
from experiments.doctor.pretraining_checks import has_learnt, least_accuracy
from experiments.doctor.run_folder import FINETUNE, PRETRAIN
from w2v_jax.config import TINY

SETTINGS = {
    "model": "tiny", "preset": "ten-clients", "rounds": 10, "clients": 10, "learning_rate": 1e-3,
    "batch_size": 4, "crop_seconds": 2.0, "model_config": dataclasses.asdict(TINY),
}  # fmt: skip
LINE = {
    "round": 4, "updates": 2_000, "loss": 4.5, "contrastive": 4.4, "code_perplexity": 260.0, "clients": 10,
    "heldout_contrastive": 4.3, "heldout_code_perplexity": 262.4, "heldout_accuracy": 0.31,
    "heldout_shuffled_accuracy": 0.125, "heldout_accuracy_standard_error": 0.0125, "chance_accuracy": 0.01,
}  # fmt: skip


def curves(**point):
    held = {
        "heldout_loss": 4.4,
        "heldout_accuracy": 0.3,
        "control": 0.1,
        "standard_error": 0.01,
        "chance": 0.02,
    }
    points = [{"step": 5_000.0, "heldout_codes": 200.0} | held | point]
    return Curves(
        writer="w2v-jax pretrain", kind="wav2vec2", points=points, spelling=PRETRAIN, size="tiny",
        chance_loss=math.log(101), groups=2, entries=640,
    )  # fmt: skip


def test_a_round_has_its_ranges():
    assert of_round(SETTINGS, LINE) == {"accuracy": "over 1.3", "codes": "over 5 %"}
    young = of_round(SETTINGS, LINE | {"updates": 100})
    assert young == {
        "accuracy": "over 1.3 from 200 updates on, usual 1.78 ± 0.22",
        "codes": "over 5 % from 2,000 updates on",
    }  # fmt: skip
    unevaluated = {name: value for name, value in LINE.items() if not name.startswith("heldout")}
    assert of_round(SETTINGS, unevaluated | {"accuracy": None}) == {"codes": "over 5 %"}


def test_the_sentence_has_the_runs_own_numbers():
    said = standing(curves())
    assert said == "accuracy 0.300 = 3.00 x control (healthy: over 1.3), codes 31 % (healthy: over 5 %)"
    assert standing(dataclasses.replace(curves(), points=[])) == ""


@pytest.mark.parametrize("accuracy", [0.05, 0.101, 0.12, 0.131, 0.3])
@pytest.mark.parametrize("loss", [4.4, 3.9])
def test_a_run_inside_the_range_has_learnt_and_one_outside_has_not(accuracy, loss):
    run = curves(heldout_accuracy=accuracy, heldout_loss=loss)
    least = least_accuracy(run)
    assert least == (0.1 if loss < 0.9 * math.log(101) else pytest.approx(0.13))
    assert has_learnt(run) == (accuracy > least)
    assert ranges(run)["accuracy"] == f"over {least / 0.1:.3g}"
    found = [held.name for held in diagnose(run).findings]
    assert ("nothing learnt" in found) == (accuracy <= least)


def test_base_is_compared_with_its_band():
    base = dataclasses.replace(curves(step=400_000.0, heldout_accuracy=0.62), size="base")
    assert ranges(base)["accuracy"] == f"over {0.629 - 3 * 0.007:.3f}"


def test_best_rq_is_judged_for_collapse_alone():
    run = dataclasses.replace(curves(), kind="best-rq", groups=4, entries=2_048)
    assert ranges(run)["codes"] == "over 0.4 %"


def test_fine_tuning_has_ranges_of_its_task():
    line = {"update": 100, "dev_loss": 3.0, "dev_wer": 0.5, "dev_cer": 0.2}
    said = of_validation({"task": "recognition", "updates": 5_000}, line, {})
    assert said == "healthy: WER under 99 % from 2,000 updates on"
    words = {"train": {"sentences": 10}}
    line = {"update": 100, "dev_loss": 3.0, "dev_accuracy": 0.5}
    assert of_validation({"task": "keywords", "updates": 500}, line, words) == "healthy: accuracy over 20.0 %"
    assert of_validation({"task": "keywords", "updates": 500}, line, {}) == ""
    blank = Curves(
        writer="w2v-jax finetune", kind="ctc", points=[{"step": 3_000.0, "wer": 1.0}], spelling=FINETUNE
    )
    assert standing(blank) == "WER 100.0 % (healthy: under 99 %)"
