"""Opening a prepared data set: an index in memory, audio read from disk clip by clip."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.common_voice import Corpus, without_short_clips
from w2v_jax.data.prepared import records
from w2v_jax.data.release.assignment import UNION
from w2v_jax.data.tables import ChangedClip, ClipRow, SkippedClip
from w2v_jax.errors import CorpusError


def is_prepared(folder: Path) -> bool:
    """Tell whether `folder` is a prepared data set, finished or not."""
    return (folder / records.MANIFEST).is_file() or folder.name.endswith(".incomplete")


class PreparedCorpus:
    """All clips of a prepared data set; a clip's number is its place in the records.

    Attributes:
        num_samples: int32 [clip], lengths at 16 kHz.
    """

    def __init__(self, folder: Path):
        """Read the index.

        Raises:
            CorpusError: not a prepared data set, an unfinished one, or one with files missing.
        """
        manifest = folder / records.MANIFEST
        if folder.name.endswith(".incomplete"):
            raise CorpusError(f"{folder} is not finished: run the same `w2v-jax data prepare` again")
        if not manifest.is_file():
            raise CorpusError(f"{folder} is not a prepared data set: it has no {records.MANIFEST}")
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads(manifest.read_text())
        self.splits: list[str] = list(self.manifest["splits"])
        shards = [shard for split in self.manifest["splits"].values() for shard in split["shards"]]
        self._paths = [folder / shard["file"] for shard in shards]
        sizes = [path.stat().st_size if path.is_file() else -1 for path in self._paths]
        whole = [size == shard["file_bytes"] for size, shard in zip(sizes, shards, strict=True)]
        if missing := [path.name for path, ok in zip(self._paths, whole, strict=True) if not ok]:
            raise CorpusError(
                f"{folder} lacks {len(missing)} of its files or parts of them, e.g. {missing[0]}: "
                "copy or prepare it again"
            )
        with np.load(folder / records.INDEX, allow_pickle=False) as index:
            self._columns = dict(index)
        self.num_samples: np.ndarray = self._columns["num_samples"]
        self._path_of = records.unpack(self._columns, "path")
        self._values = {
            name: [value_of(code) for code in range(len(self._columns[f"{name}_values_ends"]) - 1)]
            for name in records.CATEGORIES
            for value_of in [records.unpack(self._columns, f"{name}_values")]
        }
        if sum(shard["clips"] for shard in shards) != len(self.num_samples):
            raise CorpusError(f"{folder}: {records.INDEX} and the shards differ: prepare it again")
        self._source: Any = None

    def __len__(self) -> int:
        return len(self.num_samples)

    def select(self, split: str = UNION) -> np.ndarray:
        """Give the numbers of a split's clips, int64; `validated` is all of them.

        Raises:
            CorpusError: no such split.
        """
        if split == UNION:
            return np.arange(len(self))
        if split not in self.splits:
            there = ", ".join([UNION, *self.splits])
            raise CorpusError(f"{self.folder} has no split {split}: choose from {there}")
        return np.flatnonzero(self._columns["split"] == self.splits.index(split))

    def column(self, name: str, numbers: np.ndarray) -> list[str]:
        """Give the "client_id", "path", "sentence", "age", "gender" or "accent" of some clips."""
        if name == "path":
            return [self._path_of(number) for number in numbers]
        if name == "sentence":  # not in the index: reads the records
            return [self.record(number)["sentence"] for number in numbers]
        values = self._values[name]
        return [values[code] for code in self._columns[name][numbers]]

    def row(self, number: int | np.integer) -> ClipRow:
        """Give what the index knows about a clip; the sentence is in the record alone."""
        values = {name: self._values[name][self._columns[name][number]] for name in records.CATEGORIES}
        return ClipRow(path=self._path_of(int(number)), **values)

    def record(self, number: int | np.integer) -> dict[str, Any]:
        """Read a clip's whole example from disk; texts are str."""
        if self._source is None:
            self._source = records.open_records(self._paths)
        found = records.deserialise(self._source[int(number)])
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}

    def samples(self, number: int | np.integer) -> np.ndarray:
        """Read a clip's audio from disk, int16 [samples] at 16 kHz."""
        return self.record(number)["audio"]

    def skipped(self) -> list[SkippedClip]:
        """List the clips and rows that the preparation left out, and why."""
        return records.read_list(self.folder / records.SKIPPED, SkippedClip)

    def changed(self) -> list[ChangedClip]:
        """List the clips that the preparation changed, and why."""
        return records.read_list(self.folder / records.CHANGED, ChangedClip)

    def load(self, split: str = UNION, *, min_samples: int = 1) -> Corpus:
        """Give a split as a Corpus whose clips are read lazily.

        Args:
            split: one of `splits`, or "validated".
            min_samples: shorter clips are left out and listed.

        Raises:
            CorpusError: no such split, or no clip is long enough.
        """
        numbers = self.select(split)
        corpus = Corpus(
            folder=self.folder,
            split=split,
            clips=PreparedClips(self, numbers),
            skipped=[skip for skip in self.skipped() if split in (UNION, skip.split)],
            changed=[change for change in self.changed() if split in (UNION, change.split)],
        )
        return without_short_clips(corpus, min_samples)

    def listed(self, split: str, name: str) -> list[str]:
        """Give a column of a split, without reading audio.

        Raises:
            CorpusError: no such split.
        """
        return self.column(name, self.select(split))

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}  # open files do not travel

    def __setstate__(self, state: dict[str, Any]) -> None:
        PreparedCorpus.__init__(self, state["folder"])


@dataclasses.dataclass(frozen=True, slots=True)
class PreparedClip:
    """An Utterance that is read when its samples are asked for."""

    corpus: PreparedCorpus
    number: int

    @property
    def row(self) -> ClipRow:
        return self.corpus.row(self.number)

    @property
    def num_samples(self) -> int:
        return int(self.corpus.num_samples[self.number])

    @property
    def samples(self) -> np.ndarray:
        return self.corpus.samples(self.number)

    @property
    def seconds(self) -> float:
        return self.num_samples / SAMPLE_RATE_HZ


class PreparedClips(Sequence[PreparedClip]):
    """Some clips of a prepared corpus, held as their numbers."""

    def __init__(self, corpus: PreparedCorpus, numbers: np.ndarray):
        self.corpus, self.numbers = corpus, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def column(self, name: str) -> list[str]:
        """See `common_voice.column`."""
        return self.corpus.column(name, self.numbers)

    def lengths(self) -> np.ndarray:
        """See `common_voice.lengths`."""
        return self.corpus.num_samples[self.numbers].astype(np.int64)

    def take(self, indices: Iterable[int]) -> "PreparedClips":
        """See `common_voice.take`."""
        return PreparedClips(self.corpus, self.numbers[np.fromiter(indices, np.int64)])

    @overload
    def __getitem__(self, index: int) -> PreparedClip: ...
    @overload
    def __getitem__(self, index: slice) -> "PreparedClips": ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return PreparedClips(self.corpus, self.numbers[index])
        return PreparedClip(self.corpus, int(self.numbers[index]))


def load_prepared(folder: Path, split: str = UNION, *, min_samples: int = 1) -> Corpus:
    """Open a prepared data set and give a split of it.

    Args:
        folder: the folder that `w2v_jax.data.prepared.preparation.prepare` made.
        split: name of a split, or all splits together.
        min_samples: shorter clips, counted at 16 kHz, are left out.

    Raises:
        CorpusError: the folder holds no prepared data set, or it lacks the split.
    """
    return PreparedCorpus(folder).load(split, min_samples=min_samples)
