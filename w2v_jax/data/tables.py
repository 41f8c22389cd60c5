"""Common Voice's tables: a row for each clip, columns by header, whatever their release.

Releases differ: columns come and go and change names, older ones quote sentences as csv does. A row
that cannot be read is left out and listed; only a header that cannot be read is an error.
"""

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from w2v_jax.data import dialects, git_lfs
from w2v_jax.data.dialects import BadRow
from w2v_jax.errors import CorpusError

REQUIRED_COLUMNS = ("client_id", "path")
ALIASES = {"accents": "accent"}  # since release 8
CLIPS = "clips"


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
    """A clip, or a row of a table, that was left out, and why; `split` is empty where it has none."""

    path: str
    reason: str
    detail: str
    split: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ChangedClip:
    """A clip that was changed, or found under another name, and is used; what was changed, and why."""

    path: str
    reason: str
    detail: str
    split: str = ""


def counts(clips: Iterable[SkippedClip | ChangedClip]) -> dict[str, int]:
    """Count clips by reason."""
    return dict(Counter(clip.reason for clip in clips))


def none_usable(num_found: int, where: str, skipped: Sequence[SkippedClip]) -> str:
    """Say that no clip can be used, with counts by reason and an example of the most frequent one.

    Args:
        num_found: clips that are listed and there.
        where: what lists them.
        skipped: all clips and rows that were left out.
    """
    by_reason = counts(skipped)
    listed = ", ".join(f"{count} {reason}" for reason, count in by_reason.items())
    most = max(by_reason, key=lambda reason: by_reason[reason])
    example = next(skip for skip in skipped if skip.reason == most)
    number = num_found + by_reason.get("missing", 0)
    return f"none of the {number} clips{where} can be used: {listed} (e.g. {example.path}: {example.detail})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """The usable rows of one table in their order, and what was left out."""

    rows: list[ClipRow]
    skipped: list[SkippedClip]
    unreadable: list[bytes]  # malformed rows, in UTF-8


def parse_table(data: bytes, name: str) -> Table:
    """Read a table.

    Tables that were saved again are read too: commas or semicolons, csv's quotes, UTF-16 with a byte order
    mark, the line ends of old Macs, and `clips/` before a file's name. Rows are left out for: bytes that
    are not UTF-8, NUL bytes, a wrong number of fields (a tab or a line break inside one), no client or
    path, a path that is more than a file's name in `clips/`, and a path that came before.

    Args:
        data: the file's bytes.
        name: what to call it in messages.

    Raises:
        CorpusError: no header, a header that is not UTF-8 or lacks a required column, quotes that do not
            match, a Git LFS pointer, or no rows.
    """
    data = dialects.to_utf8(data, name)
    dialect = dialects.detect(data.partition(b"\n")[0], REQUIRED_COLUMNS, name)
    columns = [ALIASES.get(column, column) for column in dialect.columns]
    if missing := [column for column in REQUIRED_COLUMNS if column not in columns]:
        found = ", ".join(filter(None, columns)) or "none"
        raise CorpusError(f"{name}: missing column {', '.join(missing)} (found: {found[:200]})")
    places = [(column, columns.index(column)) for column in COLUMNS if column in columns]
    rows: list[ClipRow] = []
    skipped: list[SkippedClip] = []
    unreadable: list[bytes] = []
    seen: set[str] = set()
    for number, fields, raw in dialects.lines(data, dialect, name):
        where = f"{name}, line {number}"
        try:
            if isinstance(fields, BadRow):
                raise fields
            row = _row(fields, places)
        except BadRow as bad:
            skipped.append(SkippedClip(path=where, reason=bad.reason, detail=bad.detail))
            unreadable.append(raw)
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


def lists_nothing(data: bytes, name: str) -> bool:
    """Tell whether a table has a header alone, as some splits of small locales.

    Args:
        data: the file's bytes.
        name: what to call it in messages.

    Raises:
        CorpusError: as `dialects.to_utf8`.
    """
    if data.startswith(git_lfs.POINTER):
        return False
    return len(dialects.to_utf8(data, name).strip().splitlines()) <= 1


def _row(fields: list[str], places: list[tuple[str, int]]) -> ClipRow:
    values = {column: fields[place] for column, place in places}
    if not values["client_id"] or not values["path"]:
        raise BadRow("malformed row", "no client_id or no path")
    *folders, path = values["path"].replace("\\", "/").split("/")
    if (folders and (folders[-1] != CLIPS or ".." in folders)) or path in ("", ".", ".."):
        raise BadRow("unsafe path", "more than a file's name")
    values["path"] = path
    # Speakers and categories recur on hundreds of thousands of rows.
    recurring = ("client_id", "age", "gender", "accent")
    values |= {column: sys.intern(values[column]) for column in recurring if column in values}
    return ClipRow(**values)
