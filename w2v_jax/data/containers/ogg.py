"""Pages of ogg files (RFC 3533); files joined one after the other are links of a chain.

A decoder drops each page whose checksum is wrong and goes on, so that the pages are checked here.
"""

import dataclasses
import zlib

from w2v_jax.data.containers.marks import OGG as MAGIC
from w2v_jax.data.containers.stream import Stream
from w2v_jax.errors import ClipError

FIRST_PAGE, LAST_PAGE = 0x02, 0x04
PAGE_HEADER = 27
CHECKSUM = slice(22, 26)
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclasses.dataclass
class _Link:
    """One file of a chain, as far as it was read."""

    start: int
    end: int = 0
    begun: bool = False  # a page after the first ones was seen
    last_flags: int = 0
    damaged: int = 0  # pages with a wrong checksum
    missing: int = 0  # page numbers that were left out, those of damaged pages included
    foreign: int = 0  # bytes between pages
    expected: dict[bytes, int] = dataclasses.field(default_factory=dict)  # serial number -> next page

    def damage(self) -> str:
        counts = (
            (self.damaged, "pages are damaged"),
            (self.missing - self.damaged, "pages are missing"),
            (self.foreign, "bytes between the pages belong to none"),
        )
        return ", ".join(f"{count} {what}" for count, what in counts if count > 0)


def streams(data: bytes) -> tuple[list[Stream], int]:
    """Give the links of a chain, each as a file of its own, and the place where the last one ends.

    Raises:
        ClipError: a link's last page is missing or incomplete.
    """
    links = [_Link(0)]
    at = 0
    while at < len(data):
        link = links[-1]
        if data[at : at + 4] != MAGIC:
            following = data.find(MAGIC, at)
            if following < 0:
                break
            link.foreign += following - at
            at = following
        end, is_whole = _end_of_page(data, at)
        flags, serial = data[at + 5], data[at + 14 : at + 18]
        if flags & FIRST_PAGE and link.begun and (is_whole or serial not in link.expected):
            _check_last(link)
            link = _Link(at)
            links.append(link)
        link.begun = link.begun or not flags & FIRST_PAGE
        if is_whole:
            number = int.from_bytes(data[at + 18 : at + 22], "little")
            link.missing += max(number - link.expected.get(serial, number), 0)
            link.expected[serial] = number + 1
        else:
            link.damaged += 1
        link.last_flags, link.end, at = flags, end, end
    _check_last(links[-1])
    return [Stream(data[link.start : link.end], damage=link.damage()) for link in links], at


def _end_of_page(data: bytes, at: int) -> tuple[int, bool]:
    """Find where a page ends, and tell whether its checksum is right.

    Raises:
        ClipError: the file ends inside the page.
    """
    table = (
        data[at + PAGE_HEADER : at + PAGE_HEADER + data[at + 26]] if at + PAGE_HEADER <= len(data) else b""
    )
    end = at + PAGE_HEADER + len(table) + sum(table)
    fits = bool(table or data[at + 26 : at + 27] == b"\0") and end <= len(data)
    if fits and _checksum(data[at:end]) == data[at:end][CHECKSUM]:
        return end, True
    following = data.find(MAGIC, at + len(MAGIC))
    if following < 0 and not fits:
        raise ClipError("truncated", "the last page is incomplete")
    return (following if following >= 0 else end), False


def _checksum(page: bytes) -> bytes:
    """Compute the page's CRC-32 as it is stored.

    The polynomial is zlib's, but bits go in the other order, and neither end is inverted.
    """
    blank = page[: CHECKSUM.start] + bytes(4) + page[CHECKSUM.stop :]
    crc = zlib.crc32(blank.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(_MIRRORED)


def _check_last(link: _Link) -> None:
    if not link.last_flags & LAST_PAGE:
        raise ClipError("truncated", "the page that ends the stream is missing")
