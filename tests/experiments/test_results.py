"""The results that docs/results keeps are such as they are said to be."""

import pytest

from experiments.compare import above_untrained
from experiments.run_folder import read_json
from tests.paths import ROOT

RESULTS = ROOT / "docs" / "results"


def test_what_was_learnt_on_recorded_speech():
    rows = {row["run"]: row for row in read_json(RESULTS / "pretraining" / "compare.json")["rows"]}
    runs = {f"{n}-clients, {rule}" for n in ("ten", "hundred") for rule in ("fedavg", "loss-weighted")}
    assert set(rows) == runs | {"centralised"}
    for row in rows.values():
        assert row["contrastive"] < row["untrained_contrastive"]
        assert row["code_perplexity"] > 40
        assert above_untrained(row) > 5
        assert row["skipped_clients"] == 0
        assert "+" not in row["commit"], "made from a changed tree"
    ten = rows["ten-clients, fedavg"]
    assert ten["accuracy"] > 3 * ten["chance_accuracy"]
    assert ten["accuracy"] > 3 * ten["shuffled_accuracy"]


def test_data_at_common_voices_size():
    result = read_json(RESULTS / "bench-data" / "data.json")
    first = result["first_batch"]
    assert (first["clips"], first["speakers"]) == (200_000, 6000)
    for part in ("prepare", "first_batch", "throughput_short", "throughput_long"):
        assert result[part]["peak_bytes"] < 1e9
    assert first["first_batch_seconds"] < 10
    assert first["partition_10_spread"] < 0.02
    assert first["partition_100_spread"] < 0.05
    for part in ("throughput_short", "throughput_long"):
        assert all(result[part][kind]["audio_seconds_per_second"] >= 2000 for kind in ("crops", "buckets"))


@pytest.mark.parametrize("clients", [1, 4, 8, 16])
def test_the_automatic_layout_was_the_fastest_within_the_spread(clients):
    rows = read_json(RESULTS / "bench-clients" / "clients.json")["rows"]
    ratios = {row["method"]: row["ratio_to_auto_p90"] for row in rows if row["clients"] == clients}
    assert set(ratios) == {"loop", "vmap_lax", "vmap", "auto"}
    assert min(ratios.values()) >= 1.0
