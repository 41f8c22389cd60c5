"""Read the Common Voice layout: `clips/` beside `validated.tsv`, `train.tsv`, ..."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data import audio
from w2v_jax.data.release import layouts
from w2v_jax.data.release.assignment import UNION, Assignment, assign, read_other
from w2v_jax.data.release.folder import FolderRelease
from w2v_jax.data.tables import ChangedClip, ClipRow, SkippedClip, Table, counts, none_usable, parse_table
from w2v_jax.errors import ClipError, CorpusError


@runtime_checkable
class Utterance(Protocol):
    """A clip that can be used: in memory, or read from disk when its samples are asked for."""

    @property
    def row(self) -> ClipRow: ...

    @property
    def num_samples(self) -> int:
        """Give the length in samples at 16 kHz."""
        ...

    @property
    def samples(self) -> np.ndarray:
        """Give the samples, int16 [samples] at 16 kHz; this may read from disk."""
        ...

    @property
    def seconds(self) -> float: ...


@runtime_checkable
class Columnar(Protocol):
    """A sequence of utterances that knows its columns without touching every clip."""

    def column(self, name: str) -> Sequence[str]: ...
    def lengths(self) -> np.ndarray: ...
    def take(self, indices: Iterable[int]) -> Sequence[Utterance]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A decoded utterance: int16 samples at 16 kHz."""

    row: ClipRow
    samples: np.ndarray
    changes: tuple[tuple[str, str], ...] = ()  # reason and detail, as audio.Recording has them

    @property
    def num_samples(self) -> int:
        return len(self.samples)

    @property
    def seconds(self) -> float:
        return self.num_samples / SAMPLE_RATE_HZ


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """All usable clips of one split, in the table's order, and which were left out or changed."""

    folder: Path
    split: str
    clips: Sequence[Utterance]
    skipped: list[SkippedClip]
    changed: list[ChangedClip] = dataclasses.field(default_factory=list)

    def speakers(self) -> dict[str, list[int]]:
        """Find the indices into `clips` of each speaker, in order of first appearance."""
        found: dict[str, list[int]] = {}
        for index, client_id in enumerate(column(self.clips, "client_id")):
            found.setdefault(client_id, []).append(index)
        return found

    @property
    def seconds(self) -> float:
        return float(lengths(self.clips).sum()) / SAMPLE_RATE_HZ

    def skipped_by_reason(self) -> dict[str, int]:
        """Count clips and rows that were left out."""
        return counts(self.skipped)

    def changed_by_reason(self) -> dict[str, int]:
        """Count clips that are used although something was changed."""
        return counts(self.changed)


def column(clips: Sequence[Utterance], name: str) -> Sequence[str]:
    """Give a table's column over clips: "client_id", "path", "sentence", "age", "gender" or "accent"."""
    if isinstance(clips, Columnar):
        return clips.column(name)
    return [getattr(clip.row, name) for clip in clips]


def lengths(clips: Sequence[Utterance]) -> np.ndarray:
    """Give the length of every clip in samples at 16 kHz, int64."""
    if isinstance(clips, Columnar):
        return clips.lengths()
    return np.array([clip.num_samples for clip in clips], np.int64)


def take(clips: Sequence[Utterance], indices: Iterable[int]) -> Sequence[Utterance]:
    """Select some of the clips."""
    if isinstance(clips, Columnar):
        return clips.take(indices)
    return [clips[index] for index in indices]


def without_short_clips(corpus: Corpus, min_samples: int) -> Corpus:
    """Leave out clips of fewer samples at 16 kHz, and list them.

    Raises:
        CorpusError: no clip is left.
    """
    num_samples = lengths(corpus.clips)
    short = np.flatnonzero(num_samples < min_samples).tolist()
    if not short and len(num_samples):
        return corpus
    paths = column(corpus.clips, "path")
    skipped = corpus.skipped + [
        SkippedClip(
            path=paths[index],
            reason="too short",
            detail=f"{num_samples[index]} samples at 16 kHz, {min_samples} needed",
            split="" if corpus.split == UNION else corpus.split,
        )
        for index in short
    ]
    if len(short) == len(num_samples):
        why = none_usable(len(num_samples), f" of {corpus.split}", skipped)
        raise CorpusError(f"{corpus.folder}: {why}")
    kept = np.flatnonzero(num_samples >= min_samples).tolist()
    return dataclasses.replace(corpus, clips=take(corpus.clips, kept), skipped=skipped)


def locate(folder: Path | str, split: str = UNION) -> Path:
    """Find the locale's folder: `folder` itself, its only locale, or that of its only release.

    Raises:
        CorpusError: no such folder, no table of that name or of Common Voice's, or several to choose from.
    """
    return FolderRelease(Path(folder), split=split).folder


def read_table(folder: Path, split: str = UNION) -> Table:
    """Read the rows of `<split>.tsv`.

    Raises:
        CorpusError: the table is missing, or as `parse_table`.
    """
    path = folder / f"{split}.tsv"
    if not path.is_file():
        raise CorpusError(f"no {path.name} in {folder}")
    return parse_table(path.read_bytes(), str(path))


def decode_rows(
    folder: Path, rows: Iterable[ClipRow], *, min_samples: int = 1, workers: int = 4
) -> Iterator[Clip | SkippedClip]:
    """Decode clips in order on a few threads; unusable ones come out as SkippedClip.

    Args:
        folder: the locale's folder; audio is in its `clips/`.
        rows: of a table.
        min_samples: shortest usable clip, in samples at 16 kHz.
        workers: decoding threads.

    Yields:
        One item a row, in the order of the rows.
    """

    def one(row: ClipRow) -> Clip | SkippedClip:
        try:
            recording = audio.read(folder / "clips" / row.path, min_samples=min_samples)
            return Clip(row=row, samples=recording.samples, changes=recording.changes)
        except ClipError as error:
            return SkippedClip(path=row.path, reason=error.reason, detail=error.detail)

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(one, rows)


class FolderCorpus:
    """A locale's folder, its clips assigned to splits as in prepared data.

    Attributes:
        folder: the locale's folder.
        splits: of train, dev and test those that have clips.
    """

    def __init__(self, folder: Path | str, split: str = UNION):
        """Read the tables and the names of the clips.

        Args:
            folder: the locale's folder, a release's, or their parent.
            split: a table beside Common Voice's own that will be read.

        Raises:
            CorpusError: as `locate` and `assign`.
        """
        self._release = FolderRelease(Path(folder), split=split)
        self.folder = self._release.folder
        self._assigned: Assignment | None = None
        if self._release.tables:
            try:
                # pyright takes no cached_property for the property of a Protocol.
                self._assigned = assign(self._release, list_unused=False)  # pyright: ignore[reportArgumentType]
            except CorpusError as error:
                raise CorpusError(f"{self.folder}/{error}") from error
        self.splits = self._assigned.splits if self._assigned else []

    def _of(self, split: str) -> Assignment:
        if self._assigned is not None and split in (UNION, *self.splits):
            return self._assigned
        path = self.folder / f"{split}.tsv"
        if split in layouts.TABLES or not path.is_file():
            there = ", ".join([UNION, *self.splits])
            raise CorpusError(f"{self.folder} has no split {split} with clips: choose from {there}")
        return read_other(path.read_bytes(), path.name, self._release.clip_names)

    def listed(self, split: str, name: str) -> list[str]:
        """Give a column of a split's usable rows, without reading audio.

        Raises:
            CorpusError: no such split, or as `parse_table`.
        """
        return [getattr(row, name) for row in self._of(split).select(split)]

    def load(self, split: str = UNION, *, min_samples: int = 1) -> Corpus:
        """Decode a split; unusable clips are counted and listed, not fatal.

        Args:
            split: "validated" (all clips of the tables), one of `splits`, or another table's name.
            min_samples: shortest usable clip, in samples at 16 kHz.

        Raises:
            CorpusError: no such split, as `parse_table`, or no clip can be used.
        """
        assigned = self._of(split)
        clips: list[Clip] = []
        skipped = [skip for skip in assigned.skipped if split in (UNION, skip.split)]
        changed = [change for change in assigned.changed if split in (UNION, change.split)]
        for item in decode_rows(self.folder, assigned.select(split), min_samples=min_samples):
            place = assigned.split_of[item.path if isinstance(item, SkippedClip) else item.row.path]
            if isinstance(item, SkippedClip):
                skipped.append(dataclasses.replace(item, split=place))
                continue
            clips.append(item)
            changed += [
                ChangedClip(path=item.row.path, reason=reason, detail=detail, split=place)
                for reason, detail in item.changes
            ]
        if not clips:
            why = none_usable(len(assigned.select(split)), f" of {split}", skipped)
            raise CorpusError(f"{self.folder}: {why}")
        return Corpus(folder=self.folder, split=split, clips=clips, skipped=skipped, changed=changed)


def load_corpus(folder: Path | str, split: str = UNION, *, min_samples: int = 1) -> Corpus:
    """Open a folder and decode a split of it.

    Args:
        folder: a locale's folder, its parent, or the root of a release.
        split: name of a split's table, or all splits together.
        min_samples: shorter clips, counted at 16 kHz, are left out.

    Raises:
        CorpusError: there is no such folder or split, or its table cannot be read.
    """
    return FolderCorpus(folder, split).load(split, min_samples=min_samples)
