import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2v_jax.data.tables import ClipRow, lists_nothing, parse_table
from w2v_jax.errors import CorpusError

HEADER = "client_id\tpath\tsentence\tage\taccents\n"


def parse(text: str):
    return parse_table((HEADER + text).encode(), "validated.tsv")


def test_columns_are_found_by_their_newer_names_too():
    (row,) = parse("s1\ta.mp3\tCiao\ttwenties\tRoma\n").rows
    assert row == ClipRow(client_id="s1", path="a.mp3", sentence="Ciao", age="twenties", accent="Roma")


def test_line_ends_and_byte_order_marks_do_not_matter():
    text = (HEADER + "s1\ta.mp3\tCiao\t\t\n\ns2\tb.mp3\tE\t\t").replace("\n", "\r\n")
    table = parse_table(b"\xef\xbb\xbf" + text.encode(), "validated.tsv")
    found = [(row.client_id, row.sentence, row.accent) for row in table.rows]
    assert found == [("s1", "Ciao", ""), ("s2", "E", "")]
    assert not table.skipped


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ('"""Ciao"", disse."', '"Ciao", disse.'),  # as csv writes it
        ('"Ciao"', '"Ciao"'),  # csv would not have quoted this
        ('Disse "no', 'Disse "no'),
        ('"Ciao", disse "lei"', '"Ciao", disse "lei"'),
        ('""', '""'),
    ],
)
def test_quotes_are_undone_only_where_csv_made_them(field, meant):
    (row,) = parse(f"s1\ta.mp3\t{field}\t\t\n").rows
    assert row.sentence == meant


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b"s1\tx.mp3\ta\tb\tc\td\n", "malformed row", "6 fields in place of 5"),
        (b"s1\tx.mp3\tbroken\n", "malformed row", "3 fields in place of 5"),
        (b"s1\tx.mp3\t\0\t\t\n", "malformed row", "a NUL byte"),
        (b"s1\tx.mp3\t\xff\t\t\n", "malformed row", "not UTF-8"),
        (b"\tx.mp3\t\t\t\n", "malformed row", "no client_id or no path"),
        (b"s1\t../x.mp3\t\t\t\n", "unsafe path", "more than a file's name"),
        (b"s1\t..\t\t\t\n", "unsafe path", "more than a file's name"),
        (b"s2\ta.mp3\t\t\t\n", "duplicate", "validated.tsv, line 3"),
    ],
)
def test_rows_that_cannot_be_used_are_listed_and_the_others_kept(line, reason, detail):
    good = b"s1\ta.mp3\t\t\t\n"
    table = parse_table(HEADER.encode() + good + line + good.replace(b"a.", b"b."), "validated.tsv")
    assert [row.path for row in table.rows] == ["a.mp3", "b.mp3"]
    (skip,) = table.skipped
    assert (skip.reason, skip.detail.startswith(detail)) == (reason, True)


def test_a_table_without_usable_rows_is_an_error():
    with pytest.raises(CorpusError, match=r"no clips listed$"):
        parse("")
    with pytest.raises(CorpusError, match="1 rows cannot be read"):
        parse("s1\n")


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_bytes_crash_it(data):
    try:
        table = parse_table(HEADER.encode() + data, "validated.tsv")
    except CorpusError:
        return
    assert all(row.client_id and row.path and "/" not in row.path for row in table.rows)


def test_empty_splits_are_known():
    assert lists_nothing(HEADER.encode())
    assert not lists_nothing((HEADER + "a\tb\tc\td\te").encode())
