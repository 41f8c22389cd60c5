"""Under the jax of an old board the plain step computes what it computes here (make test-boards)."""

import json
import os
import subprocess

import jax
import numpy as np
import pytest

from experiments.costs.step import training_step
from tests.configs import VARIANTS
from tests.w2v_jax.interop.test_plain_step import (
    FILE,
    GROUP_NORM,
    LAYER_NORM,
    TOLERANCES,
    assert_same,
    drawn_state,
    make_batch,
    manifest_of,
)
from w2v_jax.interop import plain_step

BOARD_PROGRAM = """
import importlib.util, json, sys
import jax, numpy
spec = importlib.util.spec_from_file_location("plain_step", sys.argv[1])
plain_step = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plain_step)
with open(sys.argv[2]) as file:
    step = jax.jit(plain_step.make_step(json.load(file)))
arrays = numpy.load(sys.argv[3])
out = step(*[arrays[str(i)] for i in range(len(arrays.files))])
numpy.savez(sys.argv[4], *[numpy.asarray(leaf) for leaf in out])
"""


@pytest.mark.boards
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("variant", [GROUP_NORM, LAYER_NORM], ids=list(VARIANTS))
def test_an_old_jax_computes_the_same_step(variant, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(training_step, "LEARNING_RATE", 0.1)  # see _high_rate of the other tests
    python = os.environ.get("W2V_JAX_OLD_PYTHON")
    if not python:
        pytest.skip("set W2V_JAX_OLD_PYTHON to a Python that has an old jax")
    config = variant.replace(compute_dtype=dtype, rematerialise_layers=variant is LAYER_NORM)
    _, state = drawn_state(config, "adamw")
    manifest = manifest_of(config, state, "adamw")
    leaves = [*state.values(), *make_batch(), np.array([3, 7], np.uint32), np.int32(4)]
    (tmp_path / "artifact.json").write_text(json.dumps(manifest))
    np.savez(tmp_path / "in.npz", **{str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)})
    files = [FILE, tmp_path / "artifact.json", tmp_path / "in.npz", tmp_path / "out.npz"]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    done = subprocess.run(
        [python, "-c", BOARD_PROGRAM, *map(str, files)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *old, old_loss = np.load(tmp_path / "out.npz").values()
    *new, loss = jax.jit(plain_step.make_step(manifest))(*leaves)
    loss_share, state_share = TOLERANCES[dtype]
    assert abs(old_loss - loss) <= max(loss_share, 1e-4) * abs(loss)
    assert_same(dict(zip(state, old, strict=True)), dict(zip(state, new, strict=True)), state_share)
