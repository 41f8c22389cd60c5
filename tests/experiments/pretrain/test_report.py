"""Reports of pre-training: sentences that follow the metrics of the run, and only those it has."""

import json

import pytest

from experiments.pretrain import outcome, report
from experiments.process.files import read_json, write_json
from experiments.runs.folder import read_metrics
from experiments.runs.tasks import read_task_run
from tests.experiments.pretrain.test_compare import make_run


def told(folder):
    task, lines, untrained = read_task_run(folder)
    settings, clips = (read_json(folder / name) for name in ("config.json", "clips.json"))
    return outcome.sentences(task, lines, untrained, settings["settings"], clips)


def change(folder, by_round):
    """Change lines of a run's metrics, by round."""
    lines = [line | by_round.get(line["round"], {}) for line in read_metrics(folder / "metrics.jsonl")]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def run(tmp_path):
    """Write a run of three rounds, evaluated after the second and the third."""
    return make_run(tmp_path / "run", "ten-clients", 0.3)


def test_a_report_begins_with_what_was_trained_and_what_came_of_it(run):
    regularisers = {"diversity": 0.5, "feature_penalty": 2.0, "loss": 5.0}
    write_json(run / "untrained.json", read_json(run / "untrained.json") | regularisers)
    change(run, {3: {f"heldout_{name}": value / 2 for name, value in regularisers.items()}})
    assert told(run) == [
        "The model `tiny` was trained with wav2vec 2.0 on 9 clips of 4 speakers (0.02 h) of the built-in "
        "synthetic corpus (generated, not speech): 2 of 2 simulated clients took part in each of 3 rounds, "
        "and `fedavg` combined their models.",
        "Training went through 5,400 s of speech (1.50 h, with repeats) in 7 s, evaluations included; "
        "padding was 10.0 % of the computed audio.",
        "Accuracy over its control went from 1.00 before training to 6.00 after round 3 (0.300, control "
        "0.050); guessing would reach 0.030.",
        "The best round by `heldout_contrastive` was 2 of 3: 4.000, with a held-out accuracy of 0.300 "
        "(6.00 x control).",
        "From the untrained model to round 3, on held-out speech, the contrastive loss went from 4.700 to "
        "4.000, the diversity loss went from 0.500 to 0.250, the feature penalty went from 2.000 to 1.000 "
        "and the sum of the weighted terms went from 5.000 to 2.500.",
        "Codes in use (perplexity) went from 15.6 % to 7.8 % of all 640.",
    ]
    text = report.text(run, "curves.png", "files", "clients.png")
    assert text.startswith("# Pre-training report\n\n- The model `tiny`")
    assert (
        text.index("- Codes in use") < text.index("## Is this run healthy?") < text.index("## What was run")
    )
    assert "| diversity loss (before its weight)" in text


def test_sentences_of_best_rq_name_its_codebooks(tmp_path):
    found = told(make_run(tmp_path / "run", "centralised", 0.3, objective="best-rq"))
    assert found[0].endswith("on all clients' speakers at once, for 3 stretches as long as a round.")
    assert found[2].endswith("; always naming the most frequent code would reach 0.030.")
    assert found[4].endswith("the mean cross-entropy of 4 codebooks went from 4.700 to 4.000.")
    assert found[5] == (
        "Codes predicted (perplexity) went from 92.8 % to 25.0 % of all 2048; the frames' own codes have "
        "2.4 %."
    )


def test_an_accuracy_within_its_error_of_the_control_is_no_difference(run):
    change(run, {3: {"heldout_accuracy": 0.06, "heldout_accuracy_standard_error": 0.01}})
    assert "That is no difference from the control: the standard error is 0.01." in told(run)[2]
    change(run, {3: {"heldout_accuracy_standard_error": 0.004}})
    assert "no difference" not in told(run)[2]


def test_updates_that_were_not_used_are_counted_by_reason(run):
    counts = {"clients": 4, "dropped_clients": 2, "late_clients": 1, "too_large_clients": 1}
    change(run, dict.fromkeys((1, 2), counts | {"skipped_clients": 2, "client_weights": [0.0, 0.0]}))
    assert told(run)[-2:] == [
        "14 client updates were asked for: 4 never came because the client dropped out, 2 came too late, 2 "
        "exceeded --max-update-norm and 2 were not finite or learnt from nothing.",
        "2 of 3 rounds used no client's update.",
    ]


def test_a_probe_and_spent_privacy_are_told(run):
    change(run, {1: {"probe_accuracy": 0.2}, 2: {"probe_accuracy": 0.5}})
    change(run, {3: {"probe_accuracy": 0.4, "epsilon": 3.21, "delta": 1e-3}})
    assert told(run)[-2:] == [
        "The probe was right on 20.0 % of its clips after round 1 and on 40.0 % after round 3; its best was "
        "50.0 %, after round 2.",
        "The rounds spent a privacy of epsilon 3.21 at delta 0.001.",
    ]


def test_a_run_that_was_never_evaluated_says_what_it_has(tmp_path):
    run = make_run(tmp_path / "run", "ten-clients", 0.3, evaluated=())
    assert len(told(run)) == 2
    text = report.text(run, "curves.png", "files", "clients.png")
    assert "The best round" not in text
    assert "| contrastive loss (nats)" in text


def test_clients_are_described_in_a_table_beside_their_average(run):
    client = {
        "client": "a", "corrupted": False, "weight": 0.5, "training_loss": 4.0, "update_norm": 2.0,
        "cosine_to_mean": 0.5, "cosine_to_others": None, "heldout_contrastive": 3.5, "heldout_accuracy": 0.2,
        "heldout_code_perplexity": 40.0, "heldout_prob_perplexity": 50.0,
    }  # fmt: skip
    averaged = {"contrastive": 4.0, "accuracy": 0.1, "code_perplexity": 30.0, "prob_perplexity": 40.0}
    look = {
        "round": 2, "before": averaged | {"contrastive": None}, "after": averaged, "mean_update_norm": 1.5,
        "clients": [client, client | {"client": "b", "heldout_contrastive": 4.5}],
    }  # fmt: skip
    (run / "diagnostics.jsonl").write_text(json.dumps(look) + "\n")
    text = report.text(run, "curves.png", "files", "clients.png")
    assert "After round 2, 1 of 2 local models had a lower held-out contrastive loss" in text
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["norm of the update", "2", "-", "1.5"] in cells
    assert ["cosine to the others' plain mean", "not finite", "-", "-"] in cells
    assert ["held-out contrastive loss, nats", "4", "not finite", "4"] in cells
    assert "![clients](clients.png)" in text
