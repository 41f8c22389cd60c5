"""SIGKILL at random moments of a run, each continued: the same bits at the end, and no checkpoint is lost."""

import functools
import os
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments.runs.folder import read_metrics
from tests.xla import fast_flags
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus

ROUNDS = 16
OPTIONS = [
    "--preset", "hundred-clients", "--clients", "4", "--clients-per-round", "2", "--rounds", str(ROUNDS),
    "--local-steps", "1", "--batch", "2", "--seconds", "0.8", "--checkpoint-every", "1",
    "--evaluate-every", "4", "--heldout-speakers", "2", "--server-optimizer", "fedadam", "--seed", "3",
    "--server-learning-rate", "0.01", "--client-dropout", "0.2",
]  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Begin or continue a run in a folder."""
    corpus = tmp_path_factory.mktemp("corpus")
    write_corpus(corpus, SyntheticConfig(speakers=6, clips_per_speaker=3, words=20, seed=4))
    cache = str(tmp_path_factory.mktemp("cache"))

    def process(out, objective):
        argv = [sys.executable, "-m", "experiments", "pretrain", "--data", str(corpus), "--out", str(out)]
        argv += ["--objective", objective]
        return subprocess.Popen(
            [*argv, *OPTIONS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )

    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": fast_flags(2),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return process


def finish(process) -> None:
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    assert "damaged" not in said


def checkpoints(out) -> list[int]:
    folder = out / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def ended(out) -> tuple[dict[str, bytes], list[dict]]:
    """The last checkpoint's bytes and the metrics but for their times."""
    with ocp.CheckpointManager((out / "checkpoints").absolute()) as manager:
        held = manager.restore(ROUNDS, args=ocp.args.StandardRestore())
    timed = {"round_seconds", "evaluation_seconds", "audio_seconds_a_second"}
    lines = [
        {k: v for k, v in line.items() if k not in timed} for line in read_metrics(out / "metrics.jsonl")
    ]
    return {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_leaves_with_path(held)
    }, lines


@pytest.mark.slow  # three kills at chosen moments are in test_pretrain.py
@pytest.mark.parametrize(("objective", "kills"), [("wav2vec2", 3), ("wav2vec2", 100), ("best-rq", 3)])
def test_kills_at_random_moments_lose_nothing(start, tmp_path, objective, kills):
    start = functools.partial(start, objective=objective)
    whole = tmp_path / "whole"
    finish(start(whole))  # which also fills the cache
    began = time.monotonic()
    finish(start(tmp_path / "timed"))
    seconds = time.monotonic() - began
    expected, done, runs = ended(whole), 0, 0
    rng = np.random.default_rng(kills)
    while done < kills:
        out, runs = tmp_path / f"killed{runs}", runs + 1
        newest = 0
        while True:
            process = start(out)
            try:
                # Moments over a whole run and a little more: some runs end by themselves.
                said, _ = process.communicate(timeout=rng.uniform(0, 1.1 * seconds))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                done += 1
                held = checkpoints(out)
                assert not held or held[-1] >= newest
                newest = held[-1] if held else 0
                if done < kills:
                    continue
                finish(start(out))
            else:
                assert process.returncode == 0, said[-3000:]
                assert "damaged" not in said
            break
        assert ended(out) == expected
    print(f"{done} kills in {runs} runs")
