import errno
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v_jax.checkpoint import Checkpoints, OtherArraysError
from w2v_jax.errors import UserError, is_disk_error


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


def two_rounds(folder):
    checkpoints = Checkpoints(folder)
    for number in (1, 2):
        checkpoints.save(number, noise(number))
    checkpoints.close()


def noise(seed):
    """Values that do not compress away, in one small and one larger array."""
    rng = np.random.default_rng(seed)
    return {"w": jnp.asarray(rng.standard_normal((40, 50)), jnp.float32), "step": jnp.int32(seed)}


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_every_file_of_the_newest_checkpoint_may_be_lost_or_cut_short(tmp_path):
    two_rounds(tmp_path / "whole")
    names = [path.relative_to(tmp_path / "whole") for path in files_of(tmp_path / "whole" / "2")]
    assert len(names) > 3
    fell_back = 0
    for index, name in enumerate(names):
        for how in ("gone", "short"):
            folder = tmp_path / f"{how}{index}"
            shutil.copytree(tmp_path / "whole", folder)
            path = folder / name
            if how == "gone":
                path.unlink()
            else:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            checkpoints = Checkpoints(folder)
            found = checkpoints.restore_newest(noise(0))
            # A file that is not needed may be missing; what is restored is always what was saved.
            chex.assert_trees_all_equal(found.state, noise(found.round_index))
            if found.round_index == 1:
                fell_back += 1
                assert list(found.damaged) == [2]
                assert (folder / "damaged" / "2").is_dir()
                checkpoints.save(2, noise(2))  # the run comes by again
                assert checkpoints.latest() == 2
            checkpoints.close()
    assert fell_back > 5


def test_values_that_are_not_those_saved_are_noticed(tmp_path, monkeypatch):
    two_rounds(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    real = checkpoints._manager.restore

    def flipped(round_index, **kwargs):
        held = real(round_index, **kwargs)
        return held | {"w": held["w"].at[3, 4].add(1e-6)} if round_index == 2 else held

    monkeypatch.setattr(checkpoints._manager, "restore", flipped)
    found = checkpoints.restore_newest(noise(0))
    assert (found.round_index, found.damaged) == (1, {2: "w is not what was saved"})
    checkpoints.close()


def test_all_damaged_is_one_line_and_nothing_is_deleted(tmp_path):
    two_rounds(tmp_path)
    for number in (1, 2):
        for path in files_of(tmp_path / str(number)):
            path.write_bytes(b"")
    # As often as it is tried: a second start must not take the folder for a new one.
    for _ in range(2):
        checkpoints = Checkpoints(tmp_path)
        with pytest.raises(UserError, match=r"every checkpoint in .* is damaged") as caught:
            checkpoints.restore_newest(noise(0))
        assert "\n" not in str(caught.value)
        checkpoints.close()
    assert not (tmp_path / "damaged").exists()


@pytest.mark.parametrize(
    "error",
    [MemoryError(), PermissionError(errno.EACCES, "no"), OSError(errno.EMFILE, "too many open files"),
     RuntimeError("RESOURCE_EXHAUSTED: out of memory")],
    ids=str,
)  # fmt: skip
def test_what_says_nothing_of_the_files_is_no_damage(tmp_path, monkeypatch, error):
    two_rounds(tmp_path)
    checkpoints = Checkpoints(tmp_path)

    def fail(round_index, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "restore", fail)
        with pytest.raises(type(error)):
            checkpoints.restore_newest(noise(0))
    assert checkpoints.rounds() == [1, 2]
    assert checkpoints.restore_newest(noise(0)).round_index == 2
    checkpoints.close()


def test_another_architecture_is_not_taken_for_damage(tmp_path):
    two_rounds(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(OtherArraysError, match=r"w has shape \(40, 50\) there"):
        checkpoints.restore_newest({"w": jnp.zeros((3, 3)), "step": jnp.int32(0)})
    assert checkpoints.rounds() == [1, 2]
    checkpoints.close()


def test_nothing_saved_is_none(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore_newest(noise(0)) is None
    checkpoints.close()
