"""bench clients, cohorts and compile: bad input, reports, and small runs (slow)."""

import json
import re

import numpy as np
import pytest

from experiments.bench import clients_report
from experiments.bench import cohorts as bench_cohorts
from experiments.bench.workload import NoiseClients
from experiments.cli import main as cli
from experiments.process.files import read_json
from tests.experiments.cli.test_commands import fails


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            ["bench", "cohorts", "--clients-per-round", "5", "--clients", "4"],
            "--clients-per-round must be between 1 and",
        ),
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
    made = {
        "device": "cpu",
        "command": "w2v-jax bench cohorts",
        "commit": "abc",
        "cores": 2,
        "xla_flags": "",
        "versions": {},
    }
    large = row | {"population": 100, "cohort": 20, "seconds_per_round": 5.0, "peak_bytes": 1.05 * 2**30}
    text = bench_cohorts.markdown({"model": "tiny", "rows": [row, large], "provenance": made})
    assert "20 of 100 clients take 1.050 times the memory of 2 of 2" in text
    assert "| 100 | 20 | 5.00 | 250.0 | 1075 | 1.050 |" in re.sub(" +", " ", text)


@pytest.mark.slow
def test_small_runs_end_to_end(tmp_path):
    out = tmp_path / "cohorts"
    assert (
        cli.main(
            ["bench", "cohorts", "--clients", "500", "--clients-per-round", "2", "40", "--out", str(out)]
        )
        == 0
    )
    rows = read_json(out / "cohorts.json")["rows"]
    assert [(row["population"], row["cohort"]) for row in rows] == [(2, 2), (500, 2), (500, 40)]
    # Memory does not grow with the cohort.
    assert rows[-1]["peak_bytes"] < 1.1 * rows[0]["peak_bytes"], json.dumps(rows)
    out = tmp_path / "best-rq"
    argv = ["bench", "cohorts", "--model", "best-rq-tiny", "--clients", "20", "--clients-per-round", "2", "4"]
    assert cli.main([*argv, "--out", str(out)]) == 0
    assert [row["cohort"] for row in read_json(out / "cohorts.json")["rows"]] == [2, 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tiny", "best-rq-tiny"])
def test_a_second_process_finds_its_programs_compiled(model, tmp_path):
    out = tmp_path / "compile"
    assert cli.main(["bench", "compile", "--model", model, "--seconds", "1", "--out", str(out)]) == 0
    held = read_json(out / "compile.json")["rows"]
    assert held["cached"]["compile_seconds"] < 0.5 * held["cold"]["compile_seconds"]


@pytest.mark.parametrize(
    ("loop", "said"),
    [
        ([2.0, 2.1, 1.9, 2.0], "auto is the fastest: loop"),
        ([0.5, 0.51, 0.49, 0.5], "auto is NOT the fastest: loop"),
        # All four runs are slower than auto, but their mean ratio could well be one.
        ([1.01, 1.6, 1.02, 1.01], "no difference is shown: loop"),
        ([2.0], "in a single run, which decides nothing"),
    ],
)
def test_a_verdict_on_clients_follows_from_an_interval(loop, said):
    rows = [
        {"clients": 4, "method": method, "samples": samples}
        for method, samples in (("loop", loop), ("vmap", [9.0] * len(loop)), ("auto", [1.0] * len(loop)))
    ]
    assert said in clients_report.verdict(4, rows)


def test_noise_is_the_same_for_the_same_round_and_kept_where_it_is_resident():
    fresh = NoiseClients(3, steps=2, batch=2, seconds=0.01)
    kept = NoiseClients(3, steps=2, batch=2, seconds=0.01, resident=True)
    name = fresh.client_ids()[1]
    first, second = (list(fresh.client_batches(name, index)) for index in (0, 1))
    assert len(first) == fresh.plan(name, 0).num_steps
    np.testing.assert_array_equal(first[0].waveform, next(kept.client_batches(name, 1)).waveform)
    assert not np.array_equal(first[0].waveform, first[1].waveform)
    assert not np.array_equal(first[0].waveform, second[0].waveform)
