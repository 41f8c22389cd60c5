import json
import re

import pytest

from experiments.options.errors import UsageError
from experiments.pretrain import report
from experiments.pretrain.compare import above_untrained, main, markdown, read_run, summary, times

BEST_RQ = {
    "objective": "best-rq",
    "front_end": "log-mel",
    "conv_channels": (),
    "conv_kernels": (),
    "conv_strides": (),
}


def make_run(folder, preset, accuracy, evaluated=(2, 3), objective="wav2vec2"):
    """Write a run of three rounds; its best round is the second, and its settings name no other objective."""
    loss = "contrastive" if objective == "wav2vec2" else "loss"
    folder.mkdir()
    provenance = {
        "command": "w2v-jax pretrain", "commit": "abc", "versions": {"jax": "0"}, "device": "cpu", "cores": 2,
        "xla_flags": "",
    }  # fmt: skip
    settings = {
        "preset": preset, "model": "tiny", "aggregation": "fedavg", "seed": 0, "clients": 2,
        "clients_per_round": 2, "data": None, "precision": "fp32", "batch_size": 4, "crop_seconds": 2.0,
        "learning_rate": 0.1,
    } | ({} if objective == "wav2vec2" else {"model_config": BEST_RQ})  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"settings": settings, "provenance": provenance}))
    values = {
        loss: 4.7, "accuracy": 0.02, "accuracy_standard_error": 0.0, "code_perplexity": 100.0,
        "prob_perplexity": 1900.0, "shuffled_accuracy": 0.02, "chance_accuracy": 0.02,
    }  # fmt: skip
    (folder / "untrained.json").write_text(json.dumps(values))
    clips = {
        "clips": 9, "seconds": 60.0, "speakers": 4, "heldout_speakers": ["x"], "skipped_by_reason": {},
        "clients": {"a": {}, "b": {}},
    }  # fmt: skip
    (folder / "clips.json").write_text(json.dumps(clips))
    held = {
        f"heldout_{loss}": 4.0, "heldout_prob_perplexity": 512.0, "heldout_accuracy": accuracy,
        "heldout_chance_accuracy": 0.03,
        "heldout_shuffled_accuracy": 0.05, "heldout_code_perplexity": 50.0,
        "heldout_accuracy_standard_error": 0.01,
    }  # fmt: skip
    lines = [
        {
            "round": r,
            "updates": 10 * r,
            "audio_seconds": 1800.0,
            "round_seconds": 1.0,
            "skipped_clients": 0,
            loss: 4.1,
            "code_perplexity": 60.0,
            "prob_perplexity": 600.0,
            "update_norm": 1.0,
            "bytes_up": 8,
            "bytes_down": 8,
            "padded_share": 0.1,
        }
        | (held | {"evaluation_seconds": 2.0} if r in evaluated else {})
        for r in (1, 2, 3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_runs_side_by_side(tmp_path):
    runs = [make_run(tmp_path / "a", "ten-clients", 0.3), make_run(tmp_path / "b", "centralised", 0.15)]
    runs.append(make_run(tmp_path / "c", "ten-clients", 0.3))
    main([*map(str, runs), "--out", str(tmp_path / "out")])
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]
    assert [row["run"] for row in rows] == ["ten-clients, fedavg", "centralised", "ten-clients, fedavg"]
    assert (rows[0]["updates"], rows[0]["audio_hours"], rows[0]["seconds"]) == (30, 1.5, 7.0)
    table = re.sub(" +", " ", (tmp_path / "out" / "compare.md").read_text())
    assert (
        "| [ten-clients, fedavg](ten-clients-fedavg-1.md) | 30 | 1.5 h | 4.000 (4.700) | "
        "0.300 ± 0.010 (0.020) | 28 | 10.0 | 6.0 | 50 | 8 % | 2 | 10 % | 0.1 min |"
    ) in table
    # Every run's report and metrics are kept under a name of their own.
    for name in ("ten-clients-fedavg-1", "centralised", "ten-clients-fedavg-3"):
        assert f"({name}.png)" in (tmp_path / "out" / f"{name}.md").read_text()
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "out" / f"{name}.jsonl").read_text().count("\n") == 3
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_runs_of_two_objectives_are_shown_with_what_cannot_be_compared(tmp_path):
    runs = [make_run(tmp_path / name, "centralised", 0.3, objective=name) for name in ("wav2vec2", "best-rq")]
    main([*map(str, runs), "--out", str(tmp_path / "out")])
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]
    assert [row["run"] for row in rows] == ["centralised", "centralised, best-rq"]
    assert (rows[0]["contrastive"], rows[1]["loss"]) == (4.0, 4.0)
    # 50 of 640 codes in use; an average prediction as spread as 512 of 2048 codes.
    assert [row["code_share"] for row in rows] == [50 / 640, 0.25]
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "losses, accuracies and codes cannot be compared" in text
    assert "task's loss (untrained)" in text
    text = markdown(rows[1:], ["one"])
    assert "cannot be compared" not in text
    assert "cross-entropy (untrained)" in text
    assert "contrastive" not in text


def test_a_report_says_what_its_objective_predicts(tmp_path):
    for objective, frame, others in (("wav2vec2", 20, "log-mel"), ("best-rq", 40, "distractors")):
        folder = make_run(tmp_path / objective, "centralised", 0.3, objective=objective)
        text = re.sub(" +", " ", report.text(folder, "curves.png", "", "clients.png"))
        assert f"hidden frame of {frame} ms" in text
        assert others not in text
        assert "| accuracy over control | 1 | 6 | - | - | higher |" in text
        loss = "heldout_loss" if objective == "best-rq" else "heldout_contrastive"
        assert f"The best round by `{loss}` was 2 of 3: 4.000, with a held-out accuracy of 0.300" in text
    assert "always naming the most frequent code" in text
    assert "| codes predicted (perplexity) | 1900 | 512 | 600 | 600 | not 4 |" in text


def test_the_last_evaluated_round_counts(tmp_path):
    run = read_run(make_run(tmp_path / "a", "ten-clients", 0.3, evaluated=(2,)))
    assert (summary(run)["updates"], summary(run)["audio_hours"]) == (20, 1.0)


def test_gains_are_in_standard_errors_of_the_difference():
    row = {
        "accuracy": 0.09, "untrained_accuracy": 0.04, "accuracy_standard_error": 0.003,
        "untrained_accuracy_standard_error": 0.004,
    }  # fmt: skip
    assert above_untrained(row) == pytest.approx(10.0)
    assert times(0.3, 0.1) == "3.0"
    assert times(0.3, 0.0) == "-"


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not a run folder"):
        read_run(tmp_path)
    run = make_run(tmp_path / "a", "ten-clients", 0.3)
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(UsageError, match="no evaluated round"):
        read_run(run)
