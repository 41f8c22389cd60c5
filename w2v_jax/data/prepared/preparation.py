"""A release -> a prepared data set: decoded once, in checksummed shards, resumable at any moment.

Work goes on in `<out>.incomplete` and the folder gets its name when it is whole: a folder without
that ending is never a part. What is in it depends on the release alone, so that an interrupted run
that was continued ends with the same bytes as one that was not.
"""

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data import audio
from w2v_jax.data.prepared import records, releases
from w2v_jax.data.prepared.releases import Release
from w2v_jax.data.prepared.shard_plan import CLIPS_PER_SHARD, Plan, Shard, plan
from w2v_jax.errors import ClipError, CorpusError

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a preparation is."""

    done_clips: int
    total_clips: int
    skipped_clips: int
    seconds_of_audio: float


def prepare(
    source: Path,
    out: Path,
    *,
    locale: str | None = None,
    workers: int = 1,
    clips_per_shard: int = CLIPS_PER_SHARD,
    on_bytes: releases.OnBytes | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Decode a release into `out`: ArrayRecord shards that tensorflow_datasets opens, and an index.

    Args:
        source: tarball or folder of a release.
        out: the new folder. If it is there and was made from the same release, nothing is done.
        locale: which one, where the release holds several.
        workers: decoding threads.
        clips_per_shard: clips that are lost at most per split when the work is interrupted.
        on_bytes: called while a tarball is scanned.
        on_progress: called as clips are done.

    Raises:
        CorpusError: as `releases.open_release` and `plan`; `out` holds something else; another
            process prepares it; or no clip can be used.
    """
    out = out.resolve()
    work = out.with_name(out.name + ".incomplete")
    out.parent.mkdir(parents=True, exist_ok=True)
    with _lock(out):
        release = releases.open_release(source, locale, on_bytes)
        if out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        if out.exists():
            _check_same(out, release)
            return out
        work.mkdir(exist_ok=True)
        identity = {
            "format": FORMAT,
            "locale": release.locale,
            "fingerprint": release.fingerprint,
            "clips_per_shard": clips_per_shard,
        }
        _begin(work, identity)
        if not records.is_finished(work, identity):
            planned = plan(release, clips_per_shard)
            _decode(release, planned, work / "shards", workers, on_progress)
            records.finish(work, planned, identity)
        records.tidy(work)
        work.rename(out)
        records.sync(out.parent)
    return out


def _check_same(out: Path, release: Release) -> None:
    manifest = out / records.MANIFEST
    held = json.loads(manifest.read_text()) if manifest.is_file() else {}
    if held.get("fingerprint") != release.fingerprint or held.get("format") != FORMAT:
        what = "another release" if held else "something else"
        raise CorpusError(f"{out} is there and holds {what}: choose another --out")


def _begin(work: Path, identity: dict[str, Any]) -> None:
    note = work / "source.json"
    if note.is_file():
        held = json.loads(note.read_text())
        if held != identity:
            raise CorpusError(
                f"{work} is the unfinished preparation of another release or setting: "
                "remove it or choose another --out"
            )
    else:
        _write_whole(note, json.dumps(identity).encode())
    (work / "shards").mkdir(exist_ok=True)


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Only one process at a time prepares `out`; a killed one leaves no lock behind."""
    path = out.with_name(f".{out.name}.lock")
    while True:
        held = path.open("w")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            raise CorpusError(f"{out} is being prepared by another process: wait for it") from None
        if _is_at(held, path):
            break
        held.close()  # the previous holder removed the file that we locked
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        held.close()


def _is_at(held: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _decode(
    release: Release,
    planned: Plan,
    folder: Path,
    workers: int,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    """Write the shards that are not there yet; clips come as a stream, a shard of each split is open."""
    done = {shard.name: note for shard in planned.shards if (note := _finished(folder, shard))}
    place = {row.path: shard for shard in planned.shards if shard.name not in done for row in shard.rows}
    clips = sum(len(note["num_samples"]) for note in done.values())
    skipped = sum(len(note["skipped"]) for note in done.values())
    seconds = sum(sum(filter(None, note["num_samples"])) for note in done.values()) / SAMPLE_RATE_HZ
    writers: dict[str, ShardWriter] = {}
    for name, outcome in _decoded(release, place, workers):
        shard = place[name]
        if shard.name not in writers:
            writers[shard.name] = ShardWriter(folder, shard)
        writer = writers[shard.name]
        if writer.next_path != name:
            raise CorpusError("the release changed while it was read: run the command again")
        if isinstance(outcome, ClipError):
            writer.skip(outcome)
            skipped += 1
        else:
            writer.add(outcome)
            seconds += len(outcome) / SAMPLE_RATE_HZ
        clips += 1
        if writer.is_full:
            writers.pop(shard.name).close()
        if on_progress is not None:
            on_progress(Progress(clips, planned.num_clips, skipped, seconds))
    if writers:
        raise CorpusError("the release changed while it was read: run the command again")


def _decoded(release: Release, wanted: dict[str, Shard], workers: int) -> Iterator[tuple[str, Any]]:
    """(name, samples or ClipError) in the release's order; at most a few clips a worker are in memory."""

    def one(data: bytes) -> Any:
        try:
            return audio.decode_bytes(data)
        except ClipError as error:
            return error

    under_way: deque[tuple[str, Future]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for name, data in release.clips(wanted) if wanted else ():
            under_way.append((name, pool.submit(one, data)))
            if len(under_way) > 16 * workers:
                first, future = under_way.popleft()
                yield first, future.result()
        while under_way:
            first, future = under_way.popleft()
            yield first, future.result()


class ShardWriter:
    """Writes one shard under a temporary name, and its note last: a shard with a note is whole."""

    def __init__(self, folder: Path, shard: Shard):
        self._folder, self._shard = folder, shard
        self._path = folder / f"{shard.name}.array_record"
        self._part = folder / f"{shard.name}.part"
        self._writer = records.open_writer(self._part)
        self._num_samples: list[int | None] = []
        self._skipped: list[tuple[str, str, str]] = []
        self._bytes = 0

    @property
    def next_path(self) -> str:
        """The clip that comes next."""
        return self._shard.rows[len(self._num_samples)].path

    @property
    def is_full(self) -> bool:
        return len(self._num_samples) == len(self._shard.rows)

    def add(self, samples: Any) -> None:
        """The next clip."""
        data = records.serialise(self._shard.rows[len(self._num_samples)], samples)
        self._writer.write(data)
        self._bytes += len(data)
        self._num_samples.append(len(samples))

    def skip(self, error: ClipError) -> None:
        """The next clip cannot be used."""
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
        }
        _write_whole(self._path.with_suffix(".json"), json.dumps(note).encode())


def _finished(folder: Path, shard: Shard) -> dict[str, Any] | None:
    """The note of a shard that is whole; None where it must be written (again)."""
    data, note = folder / f"{shard.name}.array_record", folder / f"{shard.name}.json"
    if not (data.is_file() and note.is_file()):
        return None
    held = json.loads(note.read_text())
    with data.open("rb") as file:
        whole = hashlib.file_digest(file, "sha256").hexdigest() == held["sha256"]
    return held if whole else None


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
