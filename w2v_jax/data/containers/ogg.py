"""Pages of ogg files (RFC 3533); files joined one after the other are links of a chain."""

from w2v_jax.data.containers.stream import Stream
from w2v_jax.errors import ClipError

MAGIC = b"OggS"
FIRST_PAGE, LAST_PAGE = 0x02, 0x04
PAGE_HEADER = 27


def streams(data: bytes) -> list[Stream]:
    """Give the links of a chain, each as a file of its own.

    Raises:
        ClipError: a link's last page is missing or incomplete.
    """
    links: list[tuple[int, int]] = []  # start and end
    damage: list[str] = [""]
    start, at, begun, last_flags = 0, 0, False, 0
    expected: dict[bytes, int] = {}  # serial number -> the next page's number
    while at < len(data):
        if data[at : at + 4] != MAGIC:
            following = data.find(MAGIC, at)
            if following < 0:
                break  # a tag or filling after the last page
            damage[-1] = f"{following - at} bytes between its pages are none"
            at = following
        end = _end_of_page(data, at)
        if end is None:
            raise ClipError("truncated", "the last page is incomplete")
        flags, serial = data[at + 5], data[at + 14 : at + 18]
        number = int.from_bytes(data[at + 18 : at + 22], "little")
        if flags & FIRST_PAGE and begun:
            _check_last(last_flags)
            links.append((start, at))
            start, expected, begun = at, {}, False
            damage.append("")
        begun = begun or not flags & FIRST_PAGE
        if number > expected.get(serial, number):
            damage[-1] = f"{number - expected[serial]} pages are missing"
        expected[serial], last_flags, at = number + 1, flags, end
    _check_last(last_flags)
    links.append((start, at))
    return [
        Stream(data[first:end] if len(links) > 1 else data, damage=what)
        for (first, end), what in zip(links, damage, strict=True)
    ]


def _end_of_page(data: bytes, at: int) -> int | None:
    """Find where a page ends; None if the file ends before."""
    if at + PAGE_HEADER > len(data):
        return None
    table = data[at + PAGE_HEADER : at + PAGE_HEADER + data[at + 26]]
    end = at + PAGE_HEADER + len(table) + sum(table)
    return end if len(table) == data[at + 26] and end <= len(data) else None


def _check_last(flags: int) -> None:
    if not flags & LAST_PAGE:
        raise ClipError("truncated", "the page that ends the stream is missing")
