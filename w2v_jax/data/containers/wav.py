"""Chunks of wav (RIFF, RIFX, RF64) and aiff files: the data chunk decides how much audio there is.

Writers into a pipe cannot go back and leave sizes that are zero or near 2 or 4 GiB. The size of the
whole file in its first chunk is often wrong and tells nothing.
"""

import struct
from collections.abc import Iterator

from w2v_jax.data.containers import marks, mp3
from w2v_jax.data.containers.stream import Stream
from w2v_jax.errors import ClipError

FIRST_CHUNK = 12
SMALLEST_UNKNOWN_SIZE = 0x7FF00000  # streaming writers claim this many bytes, or more
PLAIN_FORMATS = (1, 3, 0xFFFE)  # integers, floats, and WAVE_FORMAT_EXTENSIBLE for either
SSND_HEADER = 8
PLAIN_COMPRESSIONS = (b"NONE", b"sowt", b"fl32", b"FL32", b"fl64", b"FL64")  # of AIFF-C
MOST_REST = 0.01  # of the audio's bytes; more bytes of an unknown kind are audio that the header denies


def streams(data: bytes) -> tuple[list[Stream], int]:
    """Give the stream of the wav or aiff file at the start of `data`, and the place where that file ends.

    Raises:
        ClipError: the data chunk claims more, or much less, than the file holds.
    """
    order = ">" if data[:4] in (b"RIFX", b"FORM") else "<"
    if data[:4] == b"FORM" and data[8:12] not in (b"AIFF", b"AIFC"):
        return [Stream(data)], len(data)
    frame_bytes, start, claimed = 0, 0, 0
    long_size = None
    for name, at, size in _chunks(data, FIRST_CHUNK, order):
        if name == b"ds64":
            long_size = struct.unpack_from("<Q", data, at + 8)[0] if size >= 16 else None
        elif name == b"fmt " and size >= 16:
            kind, channels, _, _, block, bits = struct.unpack_from(f"{order}HHIIHH", data, at)
            frame_bytes = block if kind in PLAIN_FORMATS and block == channels * -(-bits // 8) else 0
        elif name == b"COMM" and size >= 18:
            channels, _, bits = struct.unpack_from(">HIH", data, at)
            is_plain = data[8:12] == b"AIFF" or data[at + 18 : at + 22] in PLAIN_COMPRESSIONS
            frame_bytes = channels * -(-bits // 8) if is_plain else 0
        elif name in (b"data", b"SSND"):
            start, claimed = at, size
            break
    if not start:
        return [Stream(data)], len(data)
    if data[:4] == b"RF64" and long_size is not None:
        claimed = long_size
    return _cut(data, order, start, claimed, frame_bytes)


def _chunks(data: bytes, at: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start of the content and claimed size of the chunks from `at` on."""
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack_from(f"{order}I", data, at + 4)[0]
        yield name, at + 8, size
        at += 8 + size + size % 2


def _cut(data: bytes, order: str, start: int, claimed: int, frame_bytes: int) -> tuple[list[Stream], int]:
    """Compare the data chunk's claim with what follows it."""
    there, whole = len(data) - start, max(frame_bytes, 1)
    if _is_unknown(data, order, start, claimed):
        held = marks.next_file(data, start) - start
    elif claimed > there:
        # The size of the whole file in place of the chunk's is a known mistake of writers.
        lost_frames = claimed // whole - there // whole
        if lost_frames > 0 and claimed - there > 1 and claimed not in (len(data), len(data) - 8):
            raise ClipError("truncated", f"{there} of the data chunk's {claimed} bytes are there")
        held = there
    else:
        held = claimed
    if data[:4] == b"RF64" and held != claimed:
        data = b"RIFF" + data[4:]  # its sizes are in another chunk, and wrong
    end = start + held
    for rest in (end + held % 2, end):  # some writers leave out the byte that pads
        after = _end_of_chunks(data, min(rest, len(data)), order)
        if after is not None:
            return [_whole(data[:after], order, start, held, frame_bytes)], after
    if there - held <= MOST_REST * held:
        return [_whole(data[:end], order, start, held, frame_bytes)], end
    raise ClipError(
        "wrong header",
        f"the data chunk claims {claimed} bytes, and {there - held} more follow without a header",
    )


def _is_unknown(data: bytes, order: str, start: int, claimed: int) -> bool:
    """Tell whether a size was never filled in."""
    there = len(data) - start
    if claimed == 0:
        return there > 0 and _end_of_chunks(data, start, order) is None
    return claimed > there and claimed >= SMALLEST_UNKNOWN_SIZE


def _end_of_chunks(data: bytes, at: int, order: str) -> int | None:
    """Find where chunks from `at` on end, before a tag, zeros or another file; None at other bytes."""
    for name, content, size in _chunks(data, at, order):
        if _is_no_chunk(data, content - 8):
            return content - 8
        if not (name.isascii() and name.decode().isprintable() and content + size <= len(data) + 1):
            return None
        at = min(content + size + size % 2, len(data))
    return at


def _is_no_chunk(data: bytes, at: int) -> bool:
    """Tell whether only tags and zeros follow, or another file behind them."""
    at = marks.end_of_tags(data, at)
    return at == len(data) or data.startswith(marks.MAGIC, at) or mp3.starts_at(data, at)


def _whole(data: bytes, order: str, start: int, held: int, frame_bytes: int) -> Stream:
    """Give a stream whose sizes are those of the content."""
    head = 0 if data[:4] != b"FORM" else SSND_HEADER
    samples = (held - head) // frame_bytes if frame_bytes else 0
    sizes = struct.pack(f"{order}I", len(data) - 8), struct.pack(f"{order}I", held)
    if data[:4] != b"RF64" and (data[4:8], data[start - 4 : start]) != sizes:
        data = data[:4] + sizes[0] + data[8 : start - 4] + sizes[1] + data[start:]
    return Stream(data, max(samples, 0))
