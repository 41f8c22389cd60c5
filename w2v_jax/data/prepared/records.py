"""Prepared data on disk: ArrayRecord files of serialised examples, as tensorflow_datasets names them.

tensorflow_datasets opens such a folder with `tfds.builder_from_directory`, without TensorFlow and
without this package; `tfds.features.Audio` needs TensorFlow, so audio is a plain int16 tensor.
"""

import collections
import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.prepared.shard_plan import Plan, Shard
from w2v_jax.data.tables import ChangedClip, ClipRow, SkippedClip, counts, none_usable
from w2v_jax.errors import CorpusError

NAME = "common_voice"
VERSION = "1.0.0"
INDEX = "index.npz"
SKIPPED, CHANGED = "skipped.tsv", "changed.tsv"
LIST_COLUMNS = ("path", "reason", "detail", "split")
MANIFEST = "prepared.json"  # written last
CATEGORIES = ("client_id", "age", "gender", "accent")
HOMEPAGE = "https://commonvoice.mozilla.org"
DESCRIPTION = (
    "Clips of one Common Voice release and locale: audio decoded to mono int16 at 16 kHz. The splits "
    "train, dev, test and rest are disjoint; the release's `validated` is all of them together."
)


@functools.cache
def features() -> Any:
    """Make the tfds features of a clip; `audio` is int16 [samples] at 16 kHz, `duration` in seconds."""
    import tensorflow_datasets as tfds

    text = {name: tfds.features.Text() for name in ("sentence", "path", *CATEGORIES)}
    return tfds.features.FeaturesDict(
        {
            "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding="bytes"),
            "duration": tfds.features.Scalar(np.float32),
            **text,
        }
    )


@functools.cache
def _serializer() -> Any:
    from tensorflow_datasets.core import example_serializer

    return example_serializer.ExampleSerializer(features().get_serialized_info())


def example(row: ClipRow, samples: np.ndarray) -> dict[str, Any]:
    """Give a clip as tfds sees it."""
    seconds = np.float32(len(samples) / SAMPLE_RATE_HZ)
    return {**dataclasses.asdict(row), "audio": samples, "duration": seconds}


def serialise(row: ClipRow, samples: np.ndarray) -> bytes:
    """Give a clip as the bytes of one record."""
    from tensorflow_datasets.proto import tf_example_pb2

    proto: Any = tf_example_pb2
    data = _serializer().serialize_example(features().encode_example(example(row, samples)))
    # Protocol buffers write maps in an order that differs from process to process.
    return proto.Example.FromString(data).SerializeToString(deterministic=True)


def deserialise(record: bytes) -> dict[str, Any]:
    """Read what `serialise` wrote; texts are bytes, as tfds gives them."""
    return features().deserialize_example_np(record)


def open_writer(path: Path) -> Any:
    """Open an ArrayRecord file to write: `write(bytes)`, `close()`. Groups of one give random access."""
    from array_record.python import array_record_module  # type: ignore[attr-defined]  # a binary module

    return array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")


def open_records(paths: Sequence[Path]) -> Any:
    """Open several files for random access to their records, one file after the other."""
    from array_record.python import array_record_data_source

    return array_record_data_source.ArrayRecordDataSource([os.fspath(path) for path in paths])


def finish(work: Path, planned: Plan, identity: dict[str, Any]) -> None:
    """Make a data set of finished shards: names, index, lists of clips, metadata, manifest.

    May be interrupted and run again.

    Raises:
        CorpusError: no clip can be used.
    """
    notes = {
        shard.name: json.loads((work / "shards" / f"{shard.name}.json").read_text())
        for shard in planned.shards
    }
    skipped = [*planned.skipped, *_noted(SkippedClip, "skipped", planned, notes)]
    changed = [*planned.changed, *_noted(ChangedClip, "changed", planned, notes)]
    kept = [s for s in planned.shards if any(n is not None for n in notes[s.name]["num_samples"])]
    if not kept:
        raise CorpusError(none_usable(planned.num_clips, "", skipped))
    splits = _name_shards(work, kept, notes)
    rows, lengths, split_codes = [], [], []
    for shard in kept:
        for row, length in zip(shard.rows, notes[shard.name]["num_samples"], strict=True):
            if length is not None:
                rows.append(row)
                lengths.append(length)
                split_codes.append(list(splits).index(shard.split))
    _write_index(work / INDEX, rows, lengths, split_codes)
    _write_list(work / SKIPPED, skipped)
    _write_list(work / CHANGED, changed)
    _write_metadata(work, splits)
    manifest = {
        **identity,
        "splits": splits,
        "skipped_by_reason": counts(skipped),
        "changed_by_reason": counts(changed),
    }
    for path in work.iterdir():
        if path.is_file():
            sync(path)
    (work / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    sync(work / MANIFEST)


def _noted(kind: Any, what: str, planned: Plan, notes: dict[str, Any]) -> list[Any]:
    """Clips that the shards' notes list as skipped or changed."""
    return [
        kind(path=path, reason=reason, detail=detail, split=shard.split)
        for shard in planned.shards
        for path, reason, detail in notes[shard.name][what]
    ]


def _name_shards(work: Path, kept: Sequence[Shard], notes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Give shards their names in the data set; returns what the manifest says of each split."""
    totals = collections.Counter(shard.split for shard in kept)
    places: collections.Counter[str] = collections.Counter()
    splits: dict[str, dict[str, Any]] = {}
    for shard in kept:
        note = notes[shard.name]
        name = f"{NAME}-{shard.split}.array_record-{places[shard.split]:05d}-of-{totals[shard.split]:05d}"
        places[shard.split] += 1
        _link(work / "shards" / f"{shard.name}.array_record", work / name)
        lengths = [n for n in note["num_samples"] if n is not None]
        split = splits.setdefault(shard.split, {"clips": 0, "seconds": 0.0, "bytes": 0, "shards": []})
        split["clips"] += len(lengths)
        split["seconds"] += sum(lengths) / SAMPLE_RATE_HZ
        split["bytes"] += note["bytes"]
        size = (work / name).stat().st_size
        split["shards"].append(
            {"file": name, "sha256": note["sha256"], "file_bytes": size, "clips": len(lengths)}
        )
    return splits


def _write_list(path: Path, clips: Sequence[SkippedClip | ChangedClip]) -> None:
    """Write a table of clips; names in an archive may hold any bytes."""
    rows = [dataclasses.astuple(clip) for clip in clips]
    lines = ["\t".join(map(_one_field, row)) for row in [LIST_COLUMNS, *rows]]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="backslashreplace")


def read_list(path: Path, kind: Any) -> list[Any]:
    """Read a table that `finish` wrote, as SkippedClip or ChangedClip; empty where there is none.

    Data sets of format 1 have no changed clips, and no split for skipped ones.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[1:-1]
    return [kind(**dict(zip(LIST_COLUMNS, line.split("\t"), strict=False))) for line in lines]


def is_finished(work: Path, identity: dict[str, Any]) -> bool:
    """Tell whether `finish` came to its end here, for the same release."""
    try:
        held = json.loads((work / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return identity.items() <= held.items()


def tidy(work: Path) -> None:
    """Remove the files that only the preparation needs."""
    shutil.rmtree(work / "shards", ignore_errors=True)
    (work / "source.json").unlink(missing_ok=True)
    sync(work)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's entries, written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _one_field(text: str) -> str:
    """Text without what would end a field or a line of a table."""
    return text.replace("\t", " ").replace("\n", " ").replace("\r", " ")


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_index(path: Path, rows: list[ClipRow], num_samples: list[int], splits: list[int]) -> None:
    """Write what a partition needs to know about every clip, in the order of the records."""
    columns: dict[str, np.ndarray] = {
        "num_samples": np.array(num_samples, np.int32),
        "split": np.array(splits, np.uint8),
    }
    columns |= _pack("path", [row.path for row in rows])
    for name in CATEGORIES:
        values = [getattr(row, name) for row in rows]
        distinct = sorted(set(values))
        code = {value: number for number, value in enumerate(distinct)}
        columns[name] = np.array([code[value] for value in values], np.int32)
        columns |= _pack(f"{name}_values", distinct)
    np.savez(path, allow_pickle=False, **columns)


def _pack(name: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Texts of any length as their bytes and where each one ends: NumPy's own take the longest for all."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)])
    return {f"{name}_text": np.frombuffer(b"".join(encoded), np.uint8), f"{name}_ends": ends.astype(np.int64)}


def unpack(columns: dict[str, np.ndarray], name: str) -> Callable[[int], str]:
    """Give a function from number to text, for texts that `_pack` packed."""
    text, ends = columns[f"{name}_text"].tobytes(), columns[f"{name}_ends"]
    return lambda number: text[ends[number] : ends[number + 1]].decode()


def _write_metadata(folder: Path, splits: dict[str, dict[str, Any]]) -> None:
    """dataset_info.json and features.json."""
    import tensorflow_datasets as tfds
    from etils import epath
    from tensorflow_datasets.core import dataset_info, file_adapters, naming
    from tensorflow_datasets.core.splits import SplitDict

    identity = dataset_info.DatasetIdentity(
        name=NAME, version=tfds.core.Version(VERSION), data_dir=os.fspath(folder), module_name=""
    )
    info = dataset_info.DatasetInfo(
        builder=identity,  # type: ignore[arg-type]  # tfds itself passes an identity here
        features=features(),
        description=DESCRIPTION,
        homepage=HOMEPAGE,
        metadata=tfds.core.MetadataDict(sample_rate_hz=SAMPLE_RATE_HZ),
    )
    info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
    template = naming.ShardedFileTemplate(
        data_dir=epath.Path(folder),
        dataset_name=NAME,
        filetype_suffix="array_record",  # type: ignore[arg-type]  # etils' attributes hide its type
    )
    info.set_splits(
        SplitDict(
            [
                tfds.core.SplitInfo(
                    name=name,
                    shard_lengths=[shard["clips"] for shard in split["shards"]],
                    num_bytes=split["bytes"],
                    filename_template=template.replace(split=name),
                )
                for name, split in splits.items()
            ]
        )
    )
    info.write_to_directory(folder)
