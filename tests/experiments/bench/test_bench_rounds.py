"""bench rounds: runners in processes of their own, interleaved, gated on equal parameters."""

import subprocess
import sys

import numpy as np
import pytest

from experiments.bench.rounds import command as bench_rounds
from experiments.bench.rounds import report as rounds_report
from experiments.bench.rounds.measurement import AGREE, distance
from experiments.bench.rounds.peers import environments
from experiments.bench.rounds.runners import RUNNERS, Runner
from experiments.process.files import read_json
from tests.experiments.cli.test_commands import fails
from tests.paths import ROOT

COLUMNS = {
    "workload", "device", "precision", "clients", "runner", "seconds_per_round", "client_steps_per_second",
    "peak_bytes", "parameters_agree",
}  # fmt: skip


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    options = ["--workloads", "dense", "--clients", "3", "--repeats", "2", "--no-single-step", "--no-fedjax"]
    argv = ["--out", str(out), *options, "--runners", "ours", "loop", "sequential", "fedjax_jit"]
    # In a process of its own, as it sets XLA's flags.
    subprocess.run([sys.executable, "-m", "experiments", "bench", "rounds", *argv], check=True, cwd=ROOT)
    return out


@pytest.mark.slow
def test_all_runners_end_with_the_same_parameters(result):
    rows = read_json(result / "rounds.json")["rows"]
    assert {row["runner"] for row in rows} == {"ours", "loop", "sequential", "fedjax_jit"}
    for row in rows:
        assert set(row) >= COLUMNS
        assert row["parameters_agree"]
        assert row["distance"] <= AGREE
        assert len(row["seconds"]) >= 2
        assert row["client_steps_per_second"] == pytest.approx(24 / row["seconds_per_round"])
        assert row["first_round_seconds"] > 0 < row["startup_seconds"]
        assert 1e7 < row["peak_bytes"] == row["host_peak_bytes"]
    assert sum(row["counts"] for row in rows) == 4


@pytest.mark.slow
def test_the_report_names_the_best_peer_and_who_disagrees(result):
    held = read_json(result / "rounds.json")
    assert "the best peer" in (result / "rounds.md").read_text()
    assert (result / "rounds.png").read_bytes().startswith(b"\x89PNG")
    for row, seconds in zip(held["rows"], (1.0, 2.0, 0.5, 3.0), strict=True):
        row["seconds_per_round"] = seconds
    held["rows"][3]["counts"] = False
    held["absent"] = ["pfl"]
    said = rounds_report.sentences(held)
    # One client at a time without lanes is no peer of another project, but what is fastest is said.
    assert "2.00 times the client steps a second of a plain loop of jitted steps" in said[0]
    assert "fedjax_jit ended with other parameters in every form" in " ".join(said)
    assert said[-1] == "Not here, so not measured: pfl."


def test_parameters_that_differ_are_told(tmp_path):
    one, other, third = (tmp_path / f"{name}.npz" for name in "abc")
    np.savez(one, w=np.array([3.0, 4.0], np.float32))
    np.savez(other, w=np.array([3.0, 4.5], np.float32))
    np.savez(third, v=np.array([3.0, 4.0], np.float32))
    assert distance(one, one) == 0.0
    assert distance(other, one) == pytest.approx(0.1)
    assert distance(one, third) == np.inf


def test_runners_without_their_environment_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    monkeypatch.setattr(environments, "python_of", lambda name: tmp_path / name / "bin" / "python")
    assert bench_rounds.absent(RUNNERS) == ["drjax", "pfl", "blazefl", "flower"]
    assert bench_rounds.absent({"ours": Runner(module="ours")}) == []


def test_a_peer_whose_interpreter_is_not_here_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(environments.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"blazefl needs python3\.14t, which is not on the PATH"):
        environments.make("blazefl", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--runners", "fedjaxjit"], "did you mean fedjax_jit"),
        (["--clients", "0"], "--clients must be at least 1"),
        (["--repeats", "0"], "--repeats must be at least 1"),
    ],
)
def test_mistakes_are_one_line(options, expected, tmp_path, capsys):
    assert expected in fails(capsys, "bench", "rounds", "--out", str(tmp_path / "out"), *options)


def test_a_peak_is_not_that_of_who_started_the_process():
    code = (
        "import subprocess, sys, numpy as np; held = np.ones(50_000_000); "
        "subprocess.run([sys.executable, '-c', 'from experiments.bench.rounds.peers import protocol; "
        "print(protocol._peak_resident_bytes())'], check=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) < 200e6


def test_a_ratio_within_the_intervals_shows_no_difference():
    slow, fast, close = (
        {"seconds": [middle, middle + 0.1, middle - shift, middle + 0.05]}
        for middle, shift in ((4.0, 0.1), (1.0, 0.1), (1.05, -0.1))
    )
    assert rounds_report.caution(fast, slow, 1) == ""
    assert "no difference is shown" in rounds_report.caution(fast, close, 1)
    # The more comparisons a report makes, the wider is each interval; a single round decides nothing.
    assert "no difference is shown" in rounds_report.caution(fast, slow, 10**6)
    assert "no difference is shown" in rounds_report.caution({"seconds": [1.0]}, slow, 1)
