"""The task of a run's objective: its columns, what follows from them, and the line of a round."""

import dataclasses

import pytest

from experiments.process.files import write_json
from experiments.runs.metric_columns import with_pace
from experiments.runs.tasks import best_line, round_text, speech_heard, task_of, with_shares
from experiments.study import federated_results, length
from experiments.study.mechanism import settings as mechanism
from w2v_jax.config import BEST_RQ_BASE, BEST_RQ_TINY, TINY
from w2v_jax.errors import UserError

OLD = task_of({"model": "tiny"})  # runs of older versions name neither an objective nor a model's fields
BEST_RQ = task_of({"model_config": dataclasses.asdict(BEST_RQ_TINY)})


def test_the_task_follows_from_the_settings():
    tiny = task_of({"model_config": dataclasses.asdict(TINY)})
    assert tiny == OLD
    assert (OLD.loss, OLD.heldout_loss, OLD.codes) == (
        "contrastive",
        "heldout_contrastive",
        "code_perplexity",
    )
    assert (OLD.entries, OLD.frame_ms) == (640, 20.0)
    assert (BEST_RQ.loss, BEST_RQ.heldout_loss, BEST_RQ.codes) == ("loss", "heldout_loss", "prob_perplexity")
    assert (BEST_RQ.entries, BEST_RQ.frame_ms) == (2048, 40.0)
    base = dataclasses.asdict(BEST_RQ_BASE.replace(log_mel_stack=2)) | {"a_field_of_later_versions": 1}
    assert (task_of({"model_config": base}).entries, task_of({"model_config": base}).frame_ms) == (8192, 20.0)


@pytest.mark.parametrize("task", [OLD, BEST_RQ])
def test_shares_follow_from_the_codes_that_can_collapse(task):
    line = {
        "code_perplexity": 64.0, "prob_perplexity": 64.0, "heldout_prob_perplexity": None,
        "heldout_code_perplexity": None, "heldout_accuracy": 0.3, "heldout_shuffled_accuracy": 0.1,
    }  # fmt: skip
    found = with_shares(line, task)
    assert {name: found[name] for name in found if name not in line} == {
        "code_share": 64 / task.entries, "heldout_accuracy_over_control": pytest.approx(3.0),
    }  # fmt: skip
    assert with_shares(found, task) == found
    assert "heldout_accuracy_over_control" not in with_shares(line | {"heldout_shuffled_accuracy": 0.0}, task)
    other = {"code_perplexity": "prob_perplexity", "prob_perplexity": "code_perplexity"}[task.codes]
    few = 2 * task.groups - 0.1
    assert task.collapses({task.codes: few, other: 500.0})
    assert not task.collapses({task.codes: few + 0.2, other: 1.0})
    assert not task.collapses({task.codes: None})


def best_round(lines, task):
    found = best_line(lines, task)
    assert found is not None
    return found["round"]


def test_the_best_round_has_the_lowest_loss_of_the_task():
    lines = [
        {"round": number, "heldout_loss": loss, "heldout_contrastive": contrastive}
        for number, loss, contrastive in ((1, 3.0, None), (2, 1.0, 4.0), (3, 1.0, 2.0), (4, None, 2.5))
    ]
    assert best_round(lines, BEST_RQ) == 2
    assert best_round(lines, OLD) == 3
    assert best_line(lines[:1], OLD) is None
    by_probe = task_of({"keep_best": "probe"})
    probed = [
        line | {"probe_accuracy": share} for line, share in zip(lines, (0.1, 0.4, 0.4, None), strict=True)
    ]
    assert best_round(probed, by_probe) == 2
    assert best_line(lines, by_probe) is None
    assert best_round(lines, task_of({"keep_best": "heldout_loss"})) == 2


@pytest.mark.parametrize(
    "reader",
    [
        federated_results.curve,
        lambda folder: length.row(folder, folder),
        lambda folder: mechanism.read_cell(folder, mechanism.Setting(condition="clean", rule="fedavg"), 0),
    ],
)
def test_studies_of_one_objective_refuse_a_run_of_the_other(tmp_path, reader):
    settings = {"model_config": dataclasses.asdict(BEST_RQ_TINY)}
    write_json(tmp_path / "config.json", {"settings": settings, "provenance": {}})
    with pytest.raises(UserError, match=r"is a run of best-rq: .* reads runs of wav2vec2 alone"):
        reader(tmp_path)


def test_speech_and_padding_are_weighted_by_what_was_computed():
    lines = [{"audio_seconds": 90.0, "padded_share": 0.1}, {"audio_seconds": 150.0, "padded_share": 0.5}]
    assert speech_heard([*lines, {"round": 3}]) == (240.0, pytest.approx(0.4))
    assert speech_heard([]) == (0.0, 0.0)


LINE = {
    "round": 1, "loss": 5.0, "clients": 2, "skipped_clients": 0, "accuracy": 0.1, "audio_seconds": 80.0,
    "padded_share": 0.05, "code_perplexity": 320.0, "prob_perplexity": 1024.0, "chance_accuracy": 0.01,
    "heldout_accuracy": 0.3, "heldout_shuffled_accuracy": 0.1,
}  # fmt: skip


def test_a_round_is_told_by_the_names_of_its_task():
    said = round_text(LINE | {"contrastive": 4.0, "heldout_contrastive": 3.9, "probe_accuracy": 0.7}, OLD)
    assert said == (
        "loss 5.000  contrastive 4.000  codes in use 320 (50 % of all)  held-out contrastive 3.900 accuracy "
        "0.300 (chance 0.010, 3.00 x control)  probe accuracy 0.700  speech 80 s, padding 5 %"
    )
    said = round_text(LINE | {"heldout_loss": 4.5}, BEST_RQ)
    assert said == (
        "loss 5.000  codes predicted 1024 (50 % of all)  held-out loss 4.500 accuracy 0.300 "
        "(chance 0.010, 3.00 x control)  speech 80 s, padding 5 %"
    )


def test_a_round_is_told_with_its_pace_and_the_ranges_of_healthy_runs():
    line = LINE | {"heldout_loss": 4.5, "round_seconds": 4.0, "device_rate_share": 0.314}
    said = round_text(line, BEST_RQ, {"codes": "over 0.4 %", "accuracy": "over 1.3"})
    assert said == (
        "loss 5.000  codes predicted 1024 (50 % of all; healthy: over 0.4 %)  held-out loss 4.500 accuracy "
        "0.300 (chance 0.010, 3.00 x control; healthy: over 1.3)  speech 80 s, 20 s of speech a second, "
        "padding 5 %, 31.4 % of the device's rate"
    )


def test_older_lines_get_their_pace_where_they_tell_it():
    assert with_shares({"audio_seconds": 80.0, "round_seconds": 4.0}, OLD)["audio_seconds_a_second"] == 20.0
    assert "audio_seconds_a_second" not in with_shares({"audio_seconds": 80.0}, OLD)
    assert with_pace({"audio_seconds": 9.0, "train_seconds": 3.0})["audio_seconds_a_second"] == 3.0


def test_collapse_is_told_of_what_can_collapse():
    few_targets, few_predictions = {"code_perplexity": 5.0}, {"prob_perplexity": 5.0}
    line = {name: value for name, value in LINE.items() if not name.startswith("heldout")}
    assert "COLLAPSING" not in round_text(line | few_targets, BEST_RQ)
    assert round_text(line | few_predictions, BEST_RQ).endswith(BEST_RQ.warning)
    assert "CODEBOOK" not in BEST_RQ.warning
    nobody = {"clients": 0, "dropped_clients": 2} | few_predictions
    assert round_text(line | nobody, BEST_RQ) == "no client answered"
