"""Checkpoints of a run's state, written by Orbax: each appears whole or not at all."""

import errno
import logging
import shutil
import sys
import threading
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from w2v_jax.errors import UserError, is_disk_error, reason

PyTree = Any

PASSING_ERRORS = (
    errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT,
)  # fmt: skip
SPARE_BYTES = 2**20  # room for metadata beside the arrays
DIGESTS = "crc32"  # key of the digests by path in a checkpoint's metadata


class OtherArraysError(ValueError):
    """A checkpoint holds other arrays than the caller asks for, or arrays of other shapes."""


class Restored(NamedTuple):
    """A state from a checkpoint, and what is wrong with each newer one, by round."""

    round_index: int
    state: PyTree
    damaged: dict[int, str]


class Checkpoints:
    """The `checkpoints/` folder of a run, with one numbered folder per saved round."""

    def __init__(self, folder: Path, keep: int = 2):
        """Open or create the folder, keeping the newest `keep` checkpoints."""
        self._folder = folder
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, create=True, enable_async_checkpointing=False
            ),
        )

    def latest(self) -> int | None:
        """Return the newest saved round, or None."""
        return self._manager.latest_step()

    def rounds(self) -> list[int]:
        """List all saved rounds in rising order."""
        return sorted(self._manager.all_steps())

    def save(self, round_index: int, state: PyTree) -> None:
        """Write a checkpoint; it appears whole or not at all.

        Raises:
            UserError: the disk is full or cannot be written; earlier checkpoints are untouched.
        """
        # Check the disk first: Orbax reports a full one with many lines of its own.
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + SPARE_BYTES
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise _unwritable(round_index, f"{needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free")
        hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
        _hush()
        try:
            self._manager.save(
                round_index, args=ocp.args.StandardSave(state), custom_metadata={DIGESTS: _digests(state)}
            )
            self._manager.wait_until_finished()
        except Exception as error:
            if is_disk_error(error):
                raise _unwritable(round_index, reason(error)) from error
            sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
            raise
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks

    def remove(self, round_index: int) -> None:
        """Delete a checkpoint."""
        self._manager.delete(round_index)

    def restore_newest(self, like: PyTree) -> Restored | None:
        """Restore the newest checkpoint that is whole; None where there is no checkpoint.

        A checkpoint is damaged if files are missing, cut short or hold other values than were saved. Newer
        damaged ones are moved to `damaged/<round>` in the folder once a whole one is found.

        Raises:
            OtherArraysError: a checkpoint holds other arrays, or arrays of other shapes.
            UserError: all checkpoints are damaged.
        """
        damaged: dict[int, str] = {}
        for round_index in reversed(self.rounds()):
            state, why = self._try(round_index, like)
            if _any_process(why is not None):
                damaged[round_index] = why or "another process cannot read it"
                continue
            for number in damaged:
                self._set_aside(number)
            return Restored(round_index, state, damaged)
        if damaged:
            raise UserError(
                f"every checkpoint in {self._folder} is damaged ({damaged[max(damaged)]}): "
                "choose another --out to start anew"
            )
        return None

    def _try(self, round_index: int, like: PyTree) -> tuple[PyTree, str | None]:
        """Return the state of a checkpoint, or what is wrong with it."""
        try:
            state = self.restore(round_index, like)
            self._verify(round_index, state)
        except Exception as error:
            if isinstance(error, OtherArraysError | MemoryError) or _is_passing(error):
                raise
            return None, (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        return state, None

    def _verify(self, round_index: int, state: PyTree) -> None:
        """Compare the arrays with the digests that were saved with them; older checkpoints have none."""
        held = (self._manager.metadata(round_index).custom_metadata or {}).get(DIGESTS)
        found = _digests(state)
        # An array that no process held whole when it was saved has no digest.
        if held is not None and (wrong := [k for k, v in held.items() if found.get(k, v) != v]):
            raise ValueError(f"{wrong[0]} is not what was saved")

    def _set_aside(self, round_index: int) -> None:
        target = self._folder / "damaged" / str(round_index)
        if jax.process_index() == 0:
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(self._folder / str(round_index), target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"damaged checkpoint {round_index} is set aside")
        self._manager.reload()

    def restore(self, round_index: int, like: PyTree) -> PyTree:
        """Read a checkpoint into the shapes, dtypes and devices of `like`.

        Raises:
            OtherArraysError: the checkpoint holds other arrays, or arrays of other shapes.
        """
        self._check(round_index, like)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(round_index, args=ocp.args.StandardRestore(abstract))

    def restore_part(self, round_index: int, like: dict[str, PyTree]) -> dict[str, PyTree]:
        """Read some of a checkpoint's fields, onto the first device.

        Args:
            round_index: a saved round.
            like: arrays or their shapes, by field of the saved state, nested as the state is.

        Raises:
            OtherArraysError: the checkpoint lacks a field, or has it in another shape.
        """
        self._check(round_index, like)
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), like)
        arguments = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=True,
        )
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            return reader.restore(self._folder.absolute() / str(round_index) / "default", args=arguments)

    def _check(self, round_index: int, like: PyTree) -> None:
        """Compare shapes before Orbax does: its failure leaves tasks behind that complain later."""
        folder = self._folder.absolute() / str(round_index) / "default"
        held = _shapes(ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder)).tree)
        for path, shape in _shapes(like).items():
            if held.get(path) != shape:
                raise OtherArraysError(f"{path} has shape {held.get(path)} there, {shape} is wanted")

    def close(self) -> None:
        """Release the folder."""
        self._manager.close()


def _by_path(tree: PyTree) -> dict[str, Any]:
    """Collect leaves by path; named tuples, dicts and lists read alike, as Orbax does not tell them apart."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        names = [
            str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path
        ]
        found["/".join(names)] = leaf
    return found


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in _by_path(tree).items()}


def _digests(state: PyTree) -> dict[str, int]:
    """Compute the CRC-32 of the bytes of every array that this process holds whole."""
    return {
        path: zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        for path, leaf in _by_path(state).items()
        if not isinstance(leaf, jax.Array) or leaf.is_fully_replicated or leaf.is_fully_addressable
    }


def _any_process(found: bool) -> bool:
    """Tell whether `found` is true in any process of the run."""
    if jax.process_count() == 1:
        return found
    return bool(np.any(multihost_utils.process_allgather(np.int32(found))))


def _is_passing(error: BaseException | None) -> bool:
    """Tell whether an error has a passing cause, such as no memory, no permission or too many open files."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in PASSING_ERRORS:
            return True
        if "RESOURCE_EXHAUSTED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _hush() -> None:
    """Keep Orbax's threads, tasks and callbacks from printing an error that Orbax also raises.

    After a full disk each of them prints a traceback as it ends.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = threading.excepthook = lambda _: None
    sys.excepthook = lambda *_: None


def _unwritable(round_index: int, why: str) -> UserError:
    return UserError(
        f"cannot write the checkpoint of round {round_index} ({why}): free some space and run the same "
        "command again; earlier checkpoints are untouched"
    )
