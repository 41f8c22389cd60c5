"""A release -> a prepared data set: decoded once, in checksummed shards, resumable at any moment.

A preparation works in `<out>.incomplete` and renames this folder when it is whole: a folder without that
ending is never a part. Its content depends on the release alone, so that an interrupted run that was
continued ends with the same bytes as one that was not.
"""

import dataclasses
import fcntl
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
from w2v_jax.data.audio import Recording
from w2v_jax.data.prepared import records
from w2v_jax.data.prepared.shard_plan import CLIPS_PER_SHARD, Plan, Shard, plan
from w2v_jax.data.prepared.shard_writer import ShardWriter, finished_note, write_whole
from w2v_jax.data.release.base import Release
from w2v_jax.data.release.tarball import OnBytes, open_release
from w2v_jax.errors import ClipError, CorpusError

FORMAT = 2  # 1: files were decoded as long as their headers said, and levels were not looked at


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a preparation."""

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
    on_bytes: OnBytes | None = None,
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
        CorpusError: as `open_release` and `plan`; `out` holds something else; another
            process prepares it; or no clip can be used.
    """
    out = out.resolve()
    work = out.with_name(out.name + ".incomplete")
    out.parent.mkdir(parents=True, exist_ok=True)
    with _lock(out):
        release = open_release(source, locale, on_bytes)
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
    """See that `out` was made from the release, by these rules."""
    manifest = out / records.MANIFEST
    held = json.loads(manifest.read_text()) if manifest.is_file() else {}
    if held.get("fingerprint") != release.fingerprint:
        what = "another release" if held else "something else"
        raise CorpusError(f"{out} is there and holds {what}: choose another --out")
    if held.get("format") != FORMAT:
        raise CorpusError(
            f"{out} was prepared by another version of w2v-jax, which decoded otherwise: it can still be "
            "read; choose another --out to prepare the release again"
        )


def _begin(work: Path, identity: dict[str, Any]) -> None:
    note = work / "source.json"
    if note.is_file():
        held = json.loads(note.read_text())
        if held != identity:
            raise CorpusError(
                f"{work} is the unfinished preparation of another release, setting or version of w2v-jax: "
                "remove it or choose another --out"
            )
    else:
        write_whole(note, json.dumps(identity).encode())
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
    done = {shard.name: note for shard in planned.shards if (note := finished_note(folder, shard))}
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
            seconds += len(outcome.samples) / SAMPLE_RATE_HZ
        clips += 1
        if writer.is_full:
            writers.pop(shard.name).close()
        if on_progress is not None:
            on_progress(Progress(clips, planned.num_clips, skipped, seconds))
    if writers:
        raise CorpusError("the release changed while it was read: run the command again")


def _decoded(
    release: Release, wanted: dict[str, Shard], workers: int
) -> Iterator[tuple[str, Recording | ClipError]]:
    """Decode clips in the release's order; at most a few clips a worker are in memory."""

    def one(data: bytes) -> Recording | ClipError:
        try:
            return audio.record(data)
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
