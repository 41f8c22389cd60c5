"""Common Voice's tables: tab-separated rows, columns by header, whatever their release.

Releases differ: columns come and go and change names, older ones quote sentences as csv does. A row
that cannot be read is left out and listed; only a header that cannot be read is an error.
"""

import dataclasses
import sys

from w2v_jax.errors import CorpusError

REQUIRED_COLUMNS = ("client_id", "path")
ALIASES = {"accents": "accent"}  # since release 8


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClipRow:
    """One row of a split's table. `path` is a file's name in `clips/`; unknown values are empty."""

    client_id: str
    path: str
    sentence: str = ""
    age: str = ""
    gender: str = ""
    accent: str = ""


COLUMNS = tuple(field.name for field in dataclasses.fields(ClipRow))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SkippedClip:
    """A clip, or a row of a table, that was left out, and why."""

    path: str
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """The usable rows of one table in their order, and what was left out."""

    rows: list[ClipRow]
    skipped: list[SkippedClip]
    unreadable: list[bytes]  # lines of malformed rows


class _BadRow(Exception):
    def __init__(self, reason: str, detail: str):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def parse_table(data: bytes, name: str) -> Table:
    """Read a table.

    Rows are left out for: bytes that are not UTF-8, NUL bytes, a wrong number of fields (a tab or a
    line break inside one), no client or path, a path that is more than a file's name, and a path that
    came before.

    Args:
        data: the file's bytes, with or without byte order mark; lines end in LF or CRLF.
        name: what to call it in messages.

    Raises:
        CorpusError: no header, a header that is not UTF-8 or lacks a required column, or no rows.
    """
    header, *lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    try:
        columns = [ALIASES.get(column, column) for column in header.rstrip(b"\r").decode().split("\t")]
    except UnicodeDecodeError as error:
        raise CorpusError(f"{name}: not a UTF-8 tab-separated table ({error})") from error
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    if missing:
        found = ", ".join(filter(None, columns)) or "none"
        raise CorpusError(f"{name}: missing column {', '.join(missing)} (found: {found[:200]})")
    places = [(column, columns.index(column)) for column in COLUMNS if column in columns]
    rows: list[ClipRow] = []
    skipped: list[SkippedClip] = []
    unreadable: list[bytes] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, start=2):
        line = line.rstrip(b"\r")
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = _parse_row(line, len(columns), places)
        except _BadRow as bad:
            skipped.append(SkippedClip(path=where, reason=bad.reason, detail=bad.detail))
            unreadable.append(line)
            continue
        if row.path in seen:
            skipped.append(SkippedClip(path=row.path, reason="duplicate", detail=where))
            continue
        seen.add(row.path)
        rows.append(row)
    if not rows:
        problems = f": {len(skipped)} rows cannot be read ({skipped[0].reason})" if skipped else ""
        raise CorpusError(f"{name}: no clips listed{problems}")
    return Table(rows=rows, skipped=skipped, unreadable=unreadable)


def lists_nothing(data: bytes) -> bool:
    """Whether a table has a header alone: small locales have such splits."""
    return len(data.strip().splitlines()) <= 1


def _parse_row(line: bytes, width: int, places: list[tuple[str, int]]) -> ClipRow:
    if b"\0" in line:
        raise _BadRow("malformed row", "a NUL byte")
    try:
        fields = line.decode().split("\t")
    except UnicodeDecodeError as error:
        raise _BadRow("malformed row", f"not UTF-8 ({error.reason})") from error
    if len(fields) != width:
        raise _BadRow("malformed row", f"{len(fields)} fields in place of {width}")
    values = {column: _unquote(fields[place]) for column, place in places}
    if not values["client_id"] or not values["path"]:
        raise _BadRow("malformed row", "no client_id or no path")
    path = values["path"]
    if "/" in path or "\\" in path or path in (".", ".."):
        raise _BadRow("unsafe path", "more than a file's name")
    # Speakers and categories recur on hundreds of thousands of rows.
    recurring = ("client_id", "age", "gender", "accent")
    values |= {column: sys.intern(values[column]) for column in recurring if column in values}
    return ClipRow(**values)


def _unquote(field: str) -> str:
    """Undo csv's quoting, where it is certain: quotes around, and only doubled ones inside."""
    inside = field[1:-1]
    if len(field) > 2 and field[0] == field[-1] == '"' and '""' in inside:
        single = inside.replace('""', "")
        if '"' not in single:
            return inside.replace('""', '"')
    return field
