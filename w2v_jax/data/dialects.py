"""Read delimited tables in the dialects that people save: separators, quotes, line ends and encodings."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from w2v_jax.data import git_lfs
from w2v_jax.errors import CorpusError

ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # a byte order mark of UTF-32 begins as one of UTF-16
SEPARATORS = ("\t", ",", ";")
LONGEST_FIELD = 2**31 - 1
LONE_RETURN = re.compile(rb"\r(?![\r\n])")


class BadRow(Exception):
    """A row that cannot be read."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class Line(NamedTuple):
    """One row.

    Attributes:
        number: its last line in the file, from 1.
        fields: its values, or why there are none.
        raw: the row's bytes in UTF-8.
    """

    number: int
    fields: list[str] | BadRow
    raw: bytes


class Dialect(NamedTuple):
    """The dialect of a table, as its header shows it."""

    separator: str
    quoted: bool  # as csv writes it; a plain tab-separated table takes quotes as letters
    columns: list[str]


def to_utf8(data: bytes, name: str) -> bytes:
    """Convert a table to UTF-8 without a byte order mark, with lines that end in LF or CRLF.

    Raises:
        CorpusError: a Git LFS pointer, UTF-16 without a mark, or bytes that are not of the encoding that the
            mark names.
    """
    if data.startswith(git_lfs.POINTER):
        raise CorpusError(f"{name} is a Git LFS pointer: {git_lfs.ADVICE}")
    for mark, encoding in ENCODINGS:
        if data.startswith(mark):
            data = data[len(mark) :]
            if encoding != "utf-8":
                try:
                    data = data.decode(encoding).encode()
                except UnicodeDecodeError as error:
                    raise CorpusError(
                        f"{name}: not the {encoding} that its first bytes name ({error})"
                    ) from error
            break
    if len(data) > 1 and 0 in data[:2]:
        raise CorpusError(f"{name}: UTF-16 without a byte order mark: save it as UTF-8")
    if b"\r" in data.partition(b"\n")[0].rstrip(b"\r"):  # old Macs end lines so, in all rows or in some
        data = LONE_RETURN.sub(b"\n", data)
    return data


def detect(header: bytes, required: Sequence[str], name: str) -> Dialect:
    """Find the separator that gives the required columns, or else the one that gives most columns.

    Args:
        header: first line of the table, UTF-8.
        required: columns that it must have, lower case.
        name: what to call the table in messages.

    Raises:
        CorpusError: not UTF-8.
    """
    try:
        text = header.rstrip(b"\r").decode()
    except UnicodeDecodeError as error:
        raise CorpusError(f"{name}: not a UTF-8 tab-separated table ({error})") from error
    found = [
        Dialect(separator, quoted, columns)
        for separator in SEPARATORS
        for quoted in (False, True)
        for columns in [_header_fields(text, separator, quoted)]
    ]
    for dialect in found:
        if set(required) <= set(dialect.columns):
            return dialect._replace(quoted=dialect.quoted or dialect.separator != "\t")
    return max(found, key=lambda dialect: len(dialect.columns))


def _header_fields(text: str, separator: str, quoted: bool) -> list[str]:
    try:
        fields = next(csv.reader([text], delimiter=separator), []) if quoted else text.split(separator)
    except csv.Error:  # a field over csv's limit, 128 KiB by default: no header
        return []
    return [field.strip() for field in fields]


def lines(data: bytes, dialect: Dialect, name: str) -> Iterator[Line]:
    """Read the rows after the header; empty lines are left out.

    Raises:
        CorpusError: a quoted field that never ends.
    """
    rows = _quoted_lines(data, dialect, name) if dialect.quoted else _plain_lines(data, dialect)
    for number, fields, raw in rows:
        if not raw.strip():
            continue
        if isinstance(fields, list) and len(fields) != len(dialect.columns):
            fields = BadRow("malformed row", f"{len(fields)} fields in place of {len(dialect.columns)}")
        yield Line(number, fields, raw)


def _plain_lines(data: bytes, dialect: Dialect) -> Iterator[Line]:
    for number, line in enumerate(data.split(b"\n")[1:], start=2):
        line = line.rstrip(b"\r")
        try:
            fields: list[str] | BadRow = [_unquote(field) for field in line.decode().split(dialect.separator)]
        except UnicodeDecodeError as error:
            fields = BadRow("malformed row", f"not UTF-8 ({error.reason})")
        if b"\0" in line:
            fields = BadRow("malformed row", "a NUL byte")
        yield Line(number, fields, line)


def _quoted_lines(data: bytes, dialect: Dialect, name: str) -> Iterator[Line]:
    csv.field_size_limit(LONGEST_FIELD)
    text = io.StringIO(data.decode(errors="surrogateescape"), newline="")
    reader = csv.reader(text, delimiter=dialect.separator, strict=True)
    try:
        next(reader)
        for row in reader:
            raw = dialect.separator.join(row).encode(errors="surrogateescape")
            fields: list[str] | BadRow = row
            if any("\udc80" <= char <= "\udcff" for field in row for char in field):
                fields = BadRow("malformed row", "not UTF-8")
            if b"\0" in raw:
                fields = BadRow("malformed row", "a NUL byte")
            yield Line(reader.line_num, fields, raw)
    except csv.Error as error:
        raise CorpusError(f"{name}, line {reader.line_num}: quotes that do not match ({error})") from error


def _unquote(field: str) -> str:
    """Undo csv's quoting, where it is certain: quotes around, and only doubled ones inside."""
    inside = field[1:-1]
    if len(field) > 2 and field[0] == field[-1] == '"' and '""' in inside:
        single = inside.replace('""', "")
        if '"' not in single:
            return inside.replace('""', '"')
    return field
