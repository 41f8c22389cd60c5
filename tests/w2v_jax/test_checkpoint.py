import errno
import shutil

import chex
import jax
import jax.numpy as jnp
import pytest

from w2v_jax.checkpoint import Checkpoints, is_disk_error
from w2v_jax.errors import UserError


def state(value):
    return {"w": jnp.full((3, 2), value), "step": jnp.int32(value), "empty": {}}


def test_newest_is_restored_and_old_ones_go(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    for number in (1, 2, 3):
        checkpoints.save(number, state(float(number)))
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert again.latest() == 3
    chex.assert_trees_all_equal(again.restore(3, state(0.0)), state(3.0))
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == ["2", "3"]
    again.close()


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1.0))

    def full(*args, **kwargs):
        raise ValueError("tensorstore: RESOURCE_EXHAUSTED") from OSError(
            errno.ENOSPC, "No space left on device"
        )

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(UserError, match="earlier checkpoints are untouched") as caught:
        checkpoints.save(2, state(2.0))
    assert "\n" not in str(caught.value)
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert again.latest() == 1
    chex.assert_trees_all_equal(again.restore(1, state(0.0)), state(1.0))
    again.close()


def test_too_little_space_is_seen_before_writing(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"1\.0 MB needed, 0\.0 MB free"):
        checkpoints.save(1, state(1.0))
    assert checkpoints.latest() is None
    checkpoints.close()


def test_other_faults_are_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(checkpoints._manager, "save", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        checkpoints.save(1, state(1.0))
    checkpoints.close()
    assert not is_disk_error(ValueError("shape"))


def test_restored_arrays_keep_their_types(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.int32(5)})
    like = jax.eval_shape(lambda: {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.int32(5)})
    restored = checkpoints.restore(1, like)
    assert restored["a"].dtype == jnp.bfloat16
    assert restored["b"] == 5
    checkpoints.close()
