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


@pytest.mark.parametrize("clients", [1, 4, 8, 16])
def test_the_automatic_layout_was_the_fastest_within_the_spread(clients):
    rows = read_json(RESULTS / "bench-clients" / "clients.json")["rows"]
    ratios = {row["method"]: row["ratio_to_auto_p90"] for row in rows if row["clients"] == clients}
    assert set(ratios) == {"loop", "vmap_lax", "vmap", "auto"}
    assert min(ratios.values()) >= 1.0
