"""Writing one shard of a prepared data set so that a part is never taken for the whole."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from w2v_jax.data.audio import Recording
from w2v_jax.data.prepared import records
from w2v_jax.data.prepared.shard_plan import Shard
from w2v_jax.errors import ClipError


class ShardWriter:
    """Writes one shard under a temporary name, and its note last: a shard with a note is whole."""

    def __init__(self, folder: Path, shard: Shard):
        self._folder, self._shard = folder, shard
        self._path = folder / f"{shard.name}.array_record"
        self._part = folder / f"{shard.name}.part"
        self._writer = records.open_writer(self._part)
        self._num_samples: list[int | None] = []
        self._skipped: list[tuple[str, str, str]] = []  # path, reason, detail
        self._changed: list[tuple[str, str, str]] = []
        self._bytes = 0

    @property
    def next_path(self) -> str:
        """Path of the clip that comes next."""
        return self._shard.rows[len(self._num_samples)].path

    @property
    def is_full(self) -> bool:
        """Tell whether all clips of the shard are written or skipped."""
        return len(self._num_samples) == len(self._shard.rows)

    def add(self, recording: Recording) -> None:
        """Write the next clip."""
        self._changed += [(self.next_path, reason, detail) for reason, detail in recording.changes]
        data = records.serialise(self._shard.rows[len(self._num_samples)], recording.samples)
        self._writer.write(data)
        self._bytes += len(data)
        self._num_samples.append(len(recording.samples))

    def skip(self, error: ClipError) -> None:
        """Note that the next clip cannot be used."""
        self._skipped.append((self.next_path, error.reason, error.detail))
        self._num_samples.append(None)

    def close(self) -> None:
        """Give the shard its name."""
        try:
            self._writer.close()
        except RuntimeError as error:  # what a full disk looks like here
            raise OSError(errno.ENOSPC, f"cannot write ({error}); the same command continues") from error
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._part.replace(self._path)
        note = {
            "sha256": digest,
            "bytes": self._bytes,
            "num_samples": self._num_samples,
            "skipped": self._skipped,
            "changed": self._changed,
        }
        write_whole(self._path.with_suffix(".json"), json.dumps(note).encode())


def finished_note(folder: Path, shard: Shard) -> dict[str, Any] | None:
    """Read the note of a shard that is whole; None where the shard must be written (again)."""
    data, note = folder / f"{shard.name}.array_record", folder / f"{shard.name}.json"
    if not (data.is_file() and note.is_file()):
        return None
    held = json.loads(note.read_text())
    with data.open("rb") as file:
        whole = hashlib.file_digest(file, "sha256").hexdigest() == held["sha256"]
    return held if whole else None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and have it on the disk."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
