"""bench cohorts and bench compile: bad input, and small runs of both (slow)."""

import json

import pytest

from experiments.bench import cohorts as bench_cohorts
from experiments.cli import main as cli
from experiments.process.files import read_json
from tests.experiments.cli.test_commands import fails


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["bench", "cohorts", "--cohorts", "5", "--population", "4"], "--cohorts must be between 1 and"),
        (["bench", "cohorts", "--model", "tyni"], "unknown --model 'tyni'"),
        (["bench", "compile", "--model", "bse"], "unknown --model 'bse'"),
        (["bench", "compile", "--batch", "0"], "--batch must be at least 1"),
        (["bench", "compile", "--seconds", "0.1"], "--seconds must be between 0.5 and 60"),
    ],
)
def test_mistakes_are_one_line(argv, expected, tmp_path, capsys):
    assert expected in fails(capsys, *argv, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_cohorts_are_told_against_the_first():
    row = {
        "population": 2,
        "cohort": 2,
        "seconds_per_round": 0.5,
        "peak_bytes": 2**30,
        "lanes": 2,
        "chunk": 1,
    }
    made = {"device": "cpu", "command": "w2v-jax bench cohorts", "commit": "abc", "cores": 2, "versions": {}}
    large = row | {"population": 100, "cohort": 20, "seconds_per_round": 5.0, "peak_bytes": 1.05 * 2**30}
    text = bench_cohorts.markdown({"model": "tiny", "rows": [row, large], "provenance": made})
    assert "20 of 100 clients take 1.050 times the memory of 2 of 2" in text
    assert "| 100 | 20 | 5.00 | 250.0 | 1075 | 1.050 |" in text


@pytest.mark.slow
def test_small_runs_end_to_end(tmp_path):
    out = tmp_path / "cohorts"
    assert (
        cli.main(["bench", "cohorts", "--population", "500", "--cohorts", "2", "40", "--out", str(out)]) == 0
    )
    rows = read_json(out / "cohorts.json")["rows"]
    assert [(row["population"], row["cohort"]) for row in rows] == [(2, 2), (500, 2), (500, 40)]
    # Memory does not grow with the cohort.
    assert rows[-1]["peak_bytes"] < 1.1 * rows[0]["peak_bytes"], json.dumps(rows)
    out = tmp_path / "compile"
    assert cli.main(["bench", "compile", "--model", "tiny", "--seconds", "1", "--out", str(out)]) == 0
    held = read_json(out / "compile.json")["rows"]
    assert held["cached"]["compile_seconds"] < 0.5 * held["cold"]["compile_seconds"]
