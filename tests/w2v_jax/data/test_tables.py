import csv

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
    for start in (HEADER, "client_id,path"):
        try:
            table = parse_table(start.encode() + data, "validated.tsv")
        except CorpusError:
            continue
        assert all(row.client_id and row.path and "/" not in row.path for row in table.rows)


def test_empty_splits_are_known():
    assert lists_nothing(HEADER.encode(), "dev.tsv")
    assert not lists_nothing((HEADER + "a\tb\tc\td\te").encode(), "dev.tsv")
    with pytest.raises(CorpusError, match=r"^dev\.tsv: UTF-16 without"):
        lists_nothing(HEADER.encode("utf-16-le"), "dev.tsv")


def resaved(separator, quoted, end="\n"):
    """The same two rows as somebody's program saves them."""
    rows = [["client_id", "path", "sentence"], ["s1", "a.mp3", 'Disse "no", e poi'], ["s2", "b.mp3", "x"]]

    def field(text):
        special = any(char in text for char in f'"{separator}')
        return '"' + text.replace('"', '""') + '"' if quoted or special else text

    return "".join(separator.join(map(field, row)) + end for row in rows)


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_tables_that_were_saved_again_are_read(separator, quoted, end, encoding):
    table = parse_table(resaved(separator, quoted, end).encode(encoding), "t.tsv")
    assert [(row.client_id, row.path, row.sentence) for row in table.rows] == [
        ("s1", "a.mp3", 'Disse "no", e poi'),
        ("s2", "b.mp3", "x"),
    ]
    assert not table.skipped


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize(
    "ends", [("\r", "\n", "\n"), ("\r", "\r\n", "\r"), ("\r", "\r", "\n"), ("\r\r\n",) * 3]
)
def test_mixed_line_ends_are_read(separator, ends):
    lines = resaved(separator, quoted=False).split("\n")
    table = parse_table("".join(map(str.__add__, lines, ends)).encode(), "t.tsv")
    assert [(row.client_id, row.path) for row in table.rows] == [("s1", "a.mp3"), ("s2", "b.mp3")]
    assert not table.skipped


def test_a_header_with_a_field_that_csv_refuses_is_one_clear_error():
    former = csv.field_size_limit(100)  # of the whole process
    try:
        with pytest.raises(CorpusError, match="missing column client_id, path"):
            parse_table(b"x" * 101 + b"\ns1\ta.mp3\n", "t.tsv")
    finally:
        csv.field_size_limit(former)


def test_quoted_fields_may_hold_separators_and_line_breaks_and_bad_rows_are_listed():
    data = b'client_id,path,sentence\ns1,a.mp3,"one,\ntwo"\ns2,b.mp3\ns3,c.mp3,\xff\n\ns4,d.mp3,x\n'
    table = parse_table(data, "t.tsv")
    assert [(row.path, row.sentence) for row in table.rows] == [("a.mp3", "one,\ntwo"), ("d.mp3", "x")]
    assert [(skip.path, skip.reason) for skip in table.skipped] == [
        ("t.tsv, line 4", "malformed row"),
        ("t.tsv, line 5", "malformed row"),
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        ("client_id\tpath\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"\xff\xfec\x00\x00\xd8", "not the utf-16-le"),
        (b'client_id,path\ns1,"a.mp3\ns2,b.mp3\n', "quotes that do not match"),
        (b"speaker,path\ns1,a.mp3\n", r"missing column client_id \(found: speaker, path\)"),
    ],
)
def test_tables_that_cannot_be_read_say_what_they_are(data, expected):
    with pytest.raises(CorpusError, match=expected) as caught:
        parse_table(data, "t.tsv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["clips/a.mp3", "./clips/a.mp3", "/data/en/clips/a.mp3", r"clips\a.mp3"])
def test_the_folder_of_clips_before_a_name_is_taken_off(path):
    assert [row.path for row in parse(f"s1\t{path}\t\t\t\n").rows] == ["a.mp3"]
