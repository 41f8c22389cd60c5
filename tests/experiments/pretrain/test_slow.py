"""Minutes each, run by make test-slow: learning on recorded speech, the benchmark, the comparison."""

import pytest

from experiments.cli import main as cli
from experiments.process.files import read_json
from experiments.runs.folder import read_metrics

pytestmark = pytest.mark.slow


def test_ten_clients_learn_on_recorded_speech(corpora, tmp_path):
    # A third of the preset's rounds; docs/results has the whole runs.
    out = tmp_path / "run"
    data = str(corpora / "speechocean762" / "en")
    assert (
        cli.main(["pretrain", "--data", data, "--rounds", "14", "--evaluate-every", "14", "--out", str(out)])
        == 0
    )
    last, untrained = read_metrics(out / "metrics.jsonl")[-1], read_json(out / "untrained.json")
    assert last["heldout_contrastive"] < untrained["contrastive"] - 0.3
    assert last["heldout_accuracy"] > 2 * last["chance_accuracy"]
    assert last["heldout_accuracy"] > 1.5 * last["heldout_shuffled_accuracy"]
    assert last["heldout_code_perplexity"] > 5
    assert cli.main(["compare", str(out), "--out", str(tmp_path / "compare")]) == 0
    (row,) = read_json(tmp_path / "compare" / "compare.json")["rows"]
    assert row["accuracy"] == last["heldout_accuracy"]
    assert (tmp_path / "compare" / "compare.png").stat().st_size > 10_000


def test_benchmark_gates_on_equal_results_and_writes_rows(tmp_path):
    assert (
        cli.main(["bench", "clients", "--out", str(tmp_path), "--clients", "1", "3", "--repeats", "1"]) == 0
    )
    rows = read_json(tmp_path / "clients.json")["rows"]
    assert [(row["clients"], row["method"]) for row in rows] == [
        (k, method) for k in (1, 3) for method in ("loop", "vmap_lax", "vmap", "auto")
    ]
    for row in rows:
        assert {"clients", "method", "chunk", "lanes", "seconds_per_round"} <= set(row)
        assert row["seconds_per_round"] > 0
    assert (tmp_path / "clients.png").exists()
