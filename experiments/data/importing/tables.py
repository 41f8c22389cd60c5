"""Layouts with a row or a JSON object for each recording: tables, audiofolder, VoxPopuli and NeMo."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from experiments.data.importing.recording import (
    Found,
    Recording,
    content,
    first_line,
    known,
    split_of_file,
)
from experiments.data.importing.tree import Tree
from w2v_jax.data import dialects
from w2v_jax.errors import UserError

SUFFIXES = (".tsv", ".csv", ".jsonl", ".json", ".tsv.gz", ".csv.gz", ".jsonl.gz", ".json.gz")
ROWS_TRIED = 50  # rows by which a table is recognised
AUDIO_FOLDERS = ("clips", "wavs", "wav", "audio")  # where a table's file names may be, beside the table
# The names of columns that are guessed, the likelier ones first.
COLUMNS = {
    "path": (
        "path", "file_name", "audio_filepath", "filename", "file", "audio_path", "audio_file", "audio",
        "filepath", "wav_filename", "wav_path", "wav", "audio_id", "id",
    ),
    "speaker": (
        "speaker", "speaker_id", "client_id", "spk", "spk_id", "speaker_name", "speakerid", "reader",
        "user_id",
    ),
    "text": (
        "sentence", "text", "transcription", "transcript", "normalized_text", "raw_text", "label",
    ),
    "start": ("start", "offset", "begin"),
    "end": ("end", "stop"),
    "duration": ("duration",),
    "split": ("split", "set", "subset"),
}  # fmt: skip


class Columns(NamedTuple):
    """The columns that the user names; None for those that are guessed."""

    path: str | None = None
    speaker: str | None = None
    text: str | None = None


GUESSED = Columns()


@dataclasses.dataclass
class Rows:
    """The rows of a table as values by column; of bad rows the line, what is wrong, and the values there."""

    rows: list[Mapping[str, Any]]
    columns: list[str]
    bad: list[tuple[int, str, Mapping[str, Any]]]


def is_table(name: str) -> bool:
    """Tell whether a file's name has the suffix of a table or manifest."""
    return name.lower().endswith(SUFFIXES)


def header(path: Path) -> list[str]:
    """List the columns of a table by its first line alone; empty where it is no table."""
    line = first_line(path)
    if line.lstrip().startswith("{"):
        try:
            return list(json.loads(line))
        except ValueError:
            return []
    return _dialect(line.encode(), None, path.name).columns if is_table(path.name) else []


def find_column(columns: Sequence[str], role: str, choice: str | None = None) -> str | None:
    """Find the column for the path, the speaker, the text and so on; `choice` is the user's."""
    spelt = {column.strip().lower(): column for column in columns}
    names = (choice,) if choice is not None else COLUMNS[role]
    return next((spelt[name.lower()] for name in names if name.lower() in spelt), None)


def read_rows(path: Path, path_column: str | None = None) -> Rows:
    """Read a table: tabs, commas or semicolons, a JSON object in each line, or a list of JSON objects.

    Raises:
        UserError, CorpusError: the file cannot be read, or is no such table.
    """
    data = content(path)
    if data.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] in (b"{", b"["):
        return _json_rows(data, path)
    data = dialects.to_utf8(data, str(path))
    dialect = _dialect(data.partition(b"\n")[0], path_column, str(path))
    rows: list[Mapping[str, Any]] = []
    bad: list[tuple[int, str, Mapping[str, Any]]] = []
    for number, fields, raw in dialects.lines(data, dialect, str(path)):
        if isinstance(fields, dialects.BadRow):
            values = raw.decode(errors="surrogateescape").split(dialect.separator)
            bad.append((number, fields.detail, dict(zip(dialect.columns, values, strict=False))))
        else:
            rows.append(dict(zip(dialect.columns, fields, strict=True)))
    return Rows(rows, dialect.columns, bad)


def _dialect(line: bytes, path_column: str | None, name: str) -> dialects.Dialect:
    """Find the separator that gives a column for the audio, or else the one that gives most columns."""
    found: list[dialects.Dialect] = []
    for column in COLUMNS["path"] if path_column is None else (path_column,):
        for spelling in (column, column.upper(), column.capitalize()):
            dialect = dialects.detect(line, [spelling], name)
            if spelling in dialect.columns:
                return dialect
            found.append(dialect._replace(quoted=dialect.separator != "\t"))
    return max(found, key=lambda dialect: len(dialect.columns))


def _json_rows(data: bytes, path: Path) -> Rows:
    """Read a JSON list, or JSON objects in lines."""
    if data.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"[":
        try:
            values = list(enumerate(json.loads(data), 1))
        except ValueError as error:
            raise UserError(f"{path} is not JSON: {error}") from error
    else:
        values = [(n, line) for n, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    rows: list[Mapping[str, Any]] = []
    bad: list[tuple[int, str, Mapping[str, Any]]] = []
    for number, value in values:
        try:
            row = json.loads(value.decode("utf-8-sig")) if isinstance(value, bytes) else value
        except ValueError as error:
            bad.append((number, f"no JSON ({error})", {}))
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad.append((number, "no JSON object", {}))
    return Rows(rows, list(dict.fromkeys(column for row in rows for column in row)), bad)


def read(tree: Tree, files: Sequence[str], columns: Columns = GUESSED) -> Found:
    """Read tables that list recordings.

    A table's name or its folders may name a split. Files that no table lists are left out.

    Raises:
        UserError, CorpusError: a table cannot be read or lacks a column.
    """
    found = Found()
    origins: dict[str, dict[str, None]] = {"speaker": {}, "text": {}}
    for file in files:
        table = read_rows(tree.root / file, columns.path)
        roles = _roles(table.columns, columns, tree.root / file)
        for number, detail, values in table.bad:
            found.leave_out(f"{file}, line {number}", "malformed row", detail)
            text = _path_text(values.get(roles["path"] or ""))
            if text and (path := _find(tree, file, text)) is not None:
                found.named.add(path)
        for role, held in origins.items():
            if roles[role] is not None:
                held[f"column {roles[role]} of {file}"] = None
        split = split_of_file(file) or found.split_of_folders(file)
        for number, row in enumerate(table.rows, 1):
            _add(found, tree, file, row, roles, split, number)
    found.speakers_from = " and ".join(origins["speaker"]) or "no column for speakers"
    found.texts_from = " and ".join(origins["text"]) or "no column for texts"
    return found


def _roles(columns: Sequence[str], chosen: Columns, path: Path) -> dict[str, str | None]:
    """Find the column of each role.

    Raises:
        UserError: there is no column for the path, or not the one that the user names.
    """
    there = ", ".join(columns)[:200]
    for role, choice in chosen._asdict().items():
        if choice is not None and find_column(columns, role, choice) is None:
            raise UserError(f"--{role}-column: {path} has no column {choice} (found: {there})")
    roles = {role: find_column(columns, role, getattr(chosen, role, None)) for role in COLUMNS}
    if roles["path"] is None:
        raise UserError(
            f"{path} has no column for the audio files (found: {there}): name it with --path-column"
        )
    return roles


def _add(
    found: Found,
    tree: Tree,
    file: str,
    row: Mapping[str, Any],
    roles: Mapping[str, str | None],
    split: str,
    number: int,
) -> None:
    """Add the recording of a row, or list why there is none."""
    values = {role: row.get(column) for role, column in roles.items() if column is not None}
    text = _path_text(values["path"])
    where = f"{file}, row {number}"
    if not text:
        found.leave_out(where, "malformed row", "no path")
        return
    if (path := _find(tree, file, text)) is None:
        found.leave_out(text, "missing", f"{where}: no such file, or several of this name")
        return
    found.named.add(path)
    try:
        start, end, duration = (_seconds(values.get(role)) for role in ("start", "end", "duration"))
    except ValueError:
        found.leave_out(text, "malformed row", f"{where}: start, end or duration is no number of seconds")
        return
    found.recordings.append(
        Recording(
            name=_name(tree, path, text),
            path=path,
            speaker=known(values.get("speaker")),
            text=known(values.get("text")) or _other_text(row, roles["text"]),
            start=start,
            end=start + duration if end is None and start is not None and duration is not None else end,
            split=split_of_file(known(values.get("split"))) or split or found.split_of_folders(text),
        )
    )


def _path_text(value: Any) -> str:
    """Return the path of a table's field; columns of audio in JSON may be objects with a path."""
    return str((value.get("path") if isinstance(value, dict) else value) or "").strip()


def _find(tree: Tree, file: str, text: str) -> Path | None:
    folder = (tree.root / file).parent
    return tree.find(text, (folder, tree.root, *(folder / name for name in AUDIO_FOLDERS)))


def lists_audio(tree: Tree, file: str) -> bool:
    """Tell whether one of a table's first rows names an audio file that is there."""
    column = find_column(header(tree.root / file), "path")
    if column is None:
        return False
    try:
        rows = read_rows(tree.root / file).rows[:ROWS_TRIED]
    except UserError:
        return False
    return any(_find(tree, file, text) for row in rows if (text := _path_text(row.get(column))))


def _seconds(value: Any) -> float | None:
    return float(text) if (text := known(value)) else None


def _name(tree: Tree, path: Path, text: str) -> str:
    if path.is_relative_to(tree.root):
        return path.relative_to(tree.root).as_posix()
    return PurePosixPath(text.replace("\\", "/")).as_posix().lstrip("/")


def _other_text(row: Mapping[str, Any], column: str | None) -> str:
    """Return VoxPopuli's raw text, where its normalised one is empty, or the reverse."""
    others = {"normalized_text": "raw_text", "raw_text": "normalized_text"}
    return known(row.get(others.get(column or "", "")))
