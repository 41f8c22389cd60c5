"""pretrain as several processes that share a run folder: ends where one process does, and continues."""

import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments.process.files import read_json
from experiments.runs.folder import read_metrics
from tests.experiments.runs.test_events import assert_events_are_metrics
from tests.fed.test_distributed import free_port
from tests.xla import fast_flags
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus

OPTIONS = [
    "--preset", "hundred-clients", "--clients", "4", "--clients-per-round", "3", "--rounds", "4",
    "--local-steps", "2", "--batch", "2", "--seconds", "0.8", "--checkpoint-every", "2",
    "--evaluate-every", "2", "--heldout-speakers", "2", "--seed", "3",
]  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return write_corpus(folder, SyntheticConfig(speakers=7, clips_per_speaker=3, words=20, seed=4))


@pytest.fixture(scope="module")
def start(corpus, tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))

    def process(out, devices, *options):
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": cache,
            "XLA_FLAGS": fast_flags(devices),
        }
        argv = [sys.executable, "-m", "experiments", "pretrain", "--data", str(corpus), "--out", str(out)]
        return subprocess.Popen(
            [*argv, *OPTIONS, *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    return process


def said(process) -> str:
    words = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 0, words[-3000:]
    return words


def run_two(start, out, devices, *options) -> list[str]:
    address = f"127.0.0.1:{free_port()}"
    started = [start(out, devices, "--distributed", f"{place}/2@{address}", *options) for place in range(2)]
    return [said(process) for process in started]


def parameters(out):
    newest = max(int(path.name) for path in (out / "checkpoints").iterdir() if path.name.isdigit())
    folder = (out / "checkpoints" / str(newest) / "default").absolute()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        shapes = reader.metadata(folder).item_metadata.tree
        read = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        held = reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=read))
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(held["parameters"])
    }


def assert_same(ours, theirs):
    squares = sum(float(np.square(ours[name] - theirs[name]).sum()) for name in theirs)
    assert squares**0.5 <= 1e-5 * sum(float(np.square(value).sum()) for value in theirs.values()) ** 0.5


@pytest.mark.slow
def test_two_processes_end_where_one_does_and_go_on_where_they_ended(start, tmp_path):
    alone, both = tmp_path / "alone", tmp_path / "both"
    said(start(alone, 2))
    first, second = run_two(start, both, 1)
    assert "round 4/4" in first
    assert "report:" in first
    assert "round" not in second
    assert_same(parameters(both), parameters(alone))
    ours, theirs = read_metrics(both / "metrics.jsonl"), read_metrics(alone / "metrics.jsonl")
    assert [line["round"] for line in ours] == [1, 2, 3, 4]
    for name in ("loss", "heldout_loss", "update_norm", "clients"):
        np.testing.assert_allclose(
            [line.get(name, 0) for line in ours], [line.get(name, 0) for line in theirs], rtol=1e-3
        )
    assert read_json(both / "config.json")["provenance"]["processes"] == 2
    ended = parameters(both)
    shutil.rmtree(both / "checkpoints" / "4")
    first, _ = run_two(start, both, 1)
    assert "continuing after round 2" in first
    assert_events_are_metrics(both, "round")  # one of the processes writes
    assert_same(parameters(both), ended)


@pytest.mark.slow
def test_a_model_may_be_spread_over_the_devices_of_a_process(start, tmp_path):
    alone, both = tmp_path / "alone", tmp_path / "both"
    said(start(alone, 1, "--lanes", "1"))
    run_two(start, both, 2, "--shards", "2")
    assert_same(parameters(both), parameters(alone))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--distributed", "2/2@127.0.0.1:80"], "--distributed takes auto or INDEX/COUNT@HOST:PORT"),
        (["--distributed", "here"], "--distributed takes auto or INDEX/COUNT@HOST:PORT"),
        (["--distributed", "auto"], "--distributed auto finds no other processes"),
    ],
)
def test_mistakes_are_one_line(start, tmp_path, options, expected):
    process = start(tmp_path / "run", 1, *options)
    words = process.communicate(timeout=120)[0].decode()
    assert process.returncode == 2
    assert expected in words.splitlines()[-1]
    assert not (tmp_path / "run").exists()
