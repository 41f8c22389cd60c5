"""Reading the Common Voice layout: `clips/` beside `validated.tsv`, `train.tsv`, ..."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data import audio
from w2v_jax.data.tables import ClipRow, SkippedClip, Table, parse_table
from w2v_jax.errors import ClipError, CorpusError


@runtime_checkable
class Utterance(Protocol):
    """A clip that can be used: in memory, or read from disk when its samples are asked for."""

    @property
    def row(self) -> ClipRow: ...

    @property
    def num_samples(self) -> int:
        """Length at 16 kHz."""
        ...

    @property
    def samples(self) -> np.ndarray:
        """int16 [samples] at 16 kHz; may read from disk."""
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

    @property
    def num_samples(self) -> int:
        return len(self.samples)

    @property
    def seconds(self) -> float:
        return self.num_samples / SAMPLE_RATE_HZ


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """All usable clips of one split, in the table's order, and what was left out."""

    folder: Path
    split: str
    clips: Sequence[Utterance]
    skipped: list[SkippedClip]

    def speakers(self) -> dict[str, list[int]]:
        """Indices into `clips` by speaker, in order of first appearance."""
        found: dict[str, list[int]] = {}
        for index, client_id in enumerate(column(self.clips, "client_id")):
            found.setdefault(client_id, []).append(index)
        return found

    @property
    def seconds(self) -> float:
        return float(lengths(self.clips).sum()) / SAMPLE_RATE_HZ

    def skipped_by_reason(self) -> dict[str, int]:
        return dict(Counter(skip.reason for skip in self.skipped))


def column(clips: Sequence[Utterance], name: str) -> Sequence[str]:
    """A table's column over clips: "client_id", "path", "sentence", "age", "gender" or "accent"."""
    if isinstance(clips, Columnar):
        return clips.column(name)
    return [getattr(clip.row, name) for clip in clips]


def lengths(clips: Sequence[Utterance]) -> np.ndarray:
    """Samples at 16 kHz of every clip, int64."""
    if isinstance(clips, Columnar):
        return clips.lengths()
    return np.array([clip.num_samples for clip in clips], np.int64)


def take(clips: Sequence[Utterance], indices: Iterable[int]) -> Sequence[Utterance]:
    """Some of the clips."""
    if isinstance(clips, Columnar):
        return clips.take(indices)
    return [clips[index] for index in indices]


def locate(folder: Path | str, split: str = "validated") -> Path:
    """The locale's folder: `folder` itself, or its only child that holds the split's table.

    Raises:
        CorpusError: no such folder, no table, or several locales to choose from.
    """
    folder = Path(folder)
    table = f"{split}.tsv"
    if not folder.is_dir():
        raise CorpusError(f"no such folder: {folder} (expected a Common Voice locale with {table})")
    if (folder / table).is_file():
        return folder
    children = sorted(child for child in folder.iterdir() if (child / table).is_file())
    if len(children) == 1:
        return children[0]
    if children:
        names = ", ".join(child.name for child in children)
        raise CorpusError(f"{folder} holds several locales ({names}): name one of them")
    raise CorpusError(f"no {table} in {folder}: expected the Common Voice layout (clips/, {table})")


def read_table(folder: Path, split: str = "validated") -> Table:
    """Rows of `<split>.tsv`.

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
            samples = audio.decode(folder / "clips" / row.path, min_samples=min_samples)
            return Clip(row=row, samples=samples)
        except ClipError as error:
            return SkippedClip(path=row.path, reason=error.reason, detail=error.detail)

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(one, rows)


def load_corpus(folder: Path | str, split: str = "validated", *, min_samples: int = 1) -> Corpus:
    """Read and decode a split; unusable clips are counted and listed, not fatal.

    Args:
        folder: the locale's folder or its parent.
        split: table to read.
        min_samples: shortest usable clip, in samples at 16 kHz.

    Raises:
        CorpusError: as `locate` and `read_table`; or no clip can be used.
    """
    folder = locate(folder, split)
    table = read_table(folder, split)
    clips, skipped = [], list(table.skipped)
    for item in decode_rows(folder, table.rows, min_samples=min_samples):
        if isinstance(item, Clip):
            clips.append(item)
        else:
            skipped.append(item)
    corpus = Corpus(folder=folder, split=split, clips=clips, skipped=skipped)
    if not clips:
        reasons = ", ".join(f"{count} {reason}" for reason, count in corpus.skipped_by_reason().items())
        raise CorpusError(
            f"{folder}: none of the {len(skipped)} clips of {split}.tsv can be used ({reasons})"
        )
    return corpus
