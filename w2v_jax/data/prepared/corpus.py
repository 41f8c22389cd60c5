"""Opening a prepared data set: an index in memory, audio read from disk clip by clip."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.common_voice import Corpus
from w2v_jax.data.prepared import records
from w2v_jax.data.tables import ClipRow, SkippedClip
from w2v_jax.errors import CorpusError

UNION = "validated"


def is_prepared(folder: Path) -> bool:
    """Whether `folder` is a prepared data set, or one that is not finished."""
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
        """Numbers of a split's clips, int64; `validated` is all of them.

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
        """Some clips' "client_id", "path", "sentence", "age", "gender" or "accent"."""
        if name == "path":
            return [self._path_of(number) for number in numbers]
        if name == "sentence":  # not in the index: reads the records
            return [self.record(number)["sentence"] for number in numbers]
        values = self._values[name]
        return [values[code] for code in self._columns[name][numbers]]

    def row(self, number: int | np.integer) -> ClipRow:
        """What the index knows of a clip; the sentence is in the record alone."""
        values = {name: self._values[name][self._columns[name][number]] for name in records.CATEGORIES}
        return ClipRow(path=self._path_of(int(number)), **values)

    def record(self, number: int | np.integer) -> dict[str, Any]:
        """A clip's whole example, read from disk; texts are str."""
        if self._source is None:
            self._source = records.open_records(self._paths)
        found = records.deserialise(self._source[int(number)])
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}

    def samples(self, number: int | np.integer) -> np.ndarray:
        """A clip's audio, int16 [samples] at 16 kHz, read from disk."""
        return self.record(number)["audio"]

    def skipped(self) -> list[SkippedClip]:
        """What the preparation left out, and why."""
        lines = (self.folder / records.SKIPPED).read_text(encoding="utf-8").split("\n")[1:-1]
        parts = (line.split("\t", 2) for line in lines)
        return [SkippedClip(path=path, reason=reason, detail=detail) for path, reason, detail in parts]

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
    """Some clips of a prepared corpus; holds their numbers alone."""

    def __init__(self, corpus: PreparedCorpus, numbers: np.ndarray):
        self.corpus, self.numbers = corpus, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def column(self, name: str) -> list[str]:
        """As `common_voice.column`."""
        return self.corpus.column(name, self.numbers)

    def lengths(self) -> np.ndarray:
        """As `common_voice.lengths`."""
        return self.corpus.num_samples[self.numbers].astype(np.int64)

    def take(self, indices: Iterable[int]) -> "PreparedClips":
        """As `common_voice.take`."""
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
    """A split of a prepared data set as a Corpus whose clips are read lazily.

    Args:
        min_samples: shorter clips are left out and listed, as `load_corpus` does.

    Raises:
        CorpusError: as PreparedCorpus and `select`; or no clip is long enough.
    """
    corpus = PreparedCorpus(folder)
    numbers = corpus.select(split)
    long_enough = corpus.num_samples[numbers] >= min_samples
    skipped = corpus.skipped() + [
        SkippedClip(
            path=corpus.row(number).path,
            reason="too short",
            detail=f"{corpus.num_samples[number]} samples at 16 kHz, {min_samples} needed",
        )
        for number in numbers[~long_enough]
    ]
    if not long_enough.any():
        raise CorpusError(f"{folder}: none of the {len(numbers)} clips of {split} is long enough")
    return Corpus(
        folder=folder, split=split, clips=PreparedClips(corpus, numbers[long_enough]), skipped=skipped
    )
