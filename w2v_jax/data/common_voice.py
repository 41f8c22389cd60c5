"""Reading the Common Voice layout: `clips/` beside `validated.tsv`, `train.tsv`, ..."""

import csv
import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data import audio
from w2v_jax.errors import ClipError, CorpusError

REQUIRED_COLUMNS = ("client_id", "path")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipRow:
    """One row of a split's table. `path` is relative to `clips/`."""

    client_id: str
    path: str
    sentence: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A decoded utterance: int16 samples at 16 kHz."""

    row: ClipRow
    samples: np.ndarray

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkippedClip:
    """A clip that was left out, and why."""

    path: str
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """All usable clips of one split, in the table's order, and what was left out."""

    folder: Path
    split: str
    clips: list[Clip]
    skipped: list[SkippedClip]

    def speakers(self) -> dict[str, list[int]]:
        """Indices into `clips` by speaker, in order of first appearance."""
        found: dict[str, list[int]] = {}
        for index, clip in enumerate(self.clips):
            found.setdefault(clip.row.client_id, []).append(index)
        return found

    @property
    def seconds(self) -> float:
        return sum(clip.seconds for clip in self.clips)

    def skipped_by_reason(self) -> dict[str, int]:
        return dict(Counter(skip.reason for skip in self.skipped))


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


def read_table(folder: Path, split: str = "validated") -> list[ClipRow]:
    """Rows of `<split>.tsv`, columns by header.

    Raises:
        CorpusError: the table is missing, not UTF-8, empty, or lacks a required column.
    """
    path = folder / f"{split}.tsv"
    if not path.is_file():
        raise CorpusError(f"no {path.name} in {folder}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            columns = reader.fieldnames or []
            missing = [name for name in REQUIRED_COLUMNS if name not in columns]
            if missing:
                raise CorpusError(
                    f"{path}: missing column {', '.join(missing)} (found: {', '.join(columns) or 'none'})"
                )
            rows = [
                ClipRow(client_id=row["client_id"], path=row["path"], sentence=row.get("sentence") or "")
                for row in reader
                if row["client_id"] and row["path"]
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path}: not a UTF-8 tab-separated table ({error})") from error
    if not rows:
        raise CorpusError(f"{path}: no clips listed")
    return rows


def decode_rows(
    folder: Path, rows: Iterable[ClipRow], *, min_samples: int = 1, workers: int = 4
) -> Iterator[Clip | SkippedClip]:
    """Decode clips in order on a few threads; unusable ones come out as SkippedClip."""

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
    clips, skipped = [], []
    for item in decode_rows(folder, read_table(folder, split), min_samples=min_samples):
        (clips if isinstance(item, Clip) else skipped).append(item)
    corpus = Corpus(folder=folder, split=split, clips=clips, skipped=skipped)
    if not clips:
        reasons = ", ".join(f"{count} {reason}" for reason, count in corpus.skipped_by_reason().items())
        raise CorpusError(
            f"{folder}: none of the {len(skipped)} clips of {split}.tsv can be used ({reasons})"
        )
    return corpus
