import json

import pytest

from experiments.arguments import UsageError
from experiments.compare import main, read_run


def make_run(folder, preset, accuracy):
    folder.mkdir()
    provenance = {
        "command": "w2v-jax pretrain", "commit": "abc", "versions": {"jax": "0"}, "device": "cpu", "cores": 2,
        "xla_flags": "",
    }  # fmt: skip
    settings = {"preset": preset, "model": "tiny", "aggregation": "fedavg", "seed": 0}
    (folder / "config.json").write_text(json.dumps({"settings": settings, "provenance": provenance}))
    values = {"contrastive": 4.7, "accuracy": 0.02, "code_perplexity": 100.0}
    (folder / "untrained.json").write_text(json.dumps(values))
    held = {
        "heldout_contrastive": 4.0, "heldout_accuracy": accuracy, "heldout_chance_accuracy": 0.03,
        "heldout_shuffled_accuracy": 0.05, "heldout_code_perplexity": 50.0,
        "heldout_accuracy_standard_error": 0.01,
    }  # fmt: skip
    lines = [
        {"round": r, "updates": 10 * r, "audio_seconds": 1800.0, "round_seconds": 1.0, "skipped_clients": 0}
        | (held if r == 2 else {})
        for r in (1, 2, 3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_runs_side_by_side(tmp_path):
    runs = [make_run(tmp_path / "a", "ten-clients", 0.3), make_run(tmp_path / "b", "centralised", 0.15)]
    main([*map(str, runs), "--out", str(tmp_path / "out")])
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]
    assert [row["run"] for row in rows] == ["ten-clients, fedavg", "centralised"]
    # The last evaluated round, not the last one.
    assert (rows[0]["updates"], rows[0]["audio_hours"]) == (20, 1.0)
    table = (tmp_path / "out" / "compare.md").read_text()
    assert (
        "| ten-clients, fedavg | 20 | 1.0 h | 4.000 (4.700) | 0.300 ± 0.010 (0.020) | 10.0 | 6.0 | 50 |"
        in table
    )
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not a run folder"):
        read_run(tmp_path)
    run = make_run(tmp_path / "a", "ten-clients", 0.3)
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(UsageError, match="no evaluated round"):
        read_run(run)
