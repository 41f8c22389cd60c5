"""Frames of mp3 files: counted, so that a decoder that guesses a length from the first one is corrected.

libsndfile reads as many frames as the Xing header says, or as the first frame's bit rate suggests. A file
whose bit rate varies and that has no Xing header (written into a pipe), and files joined one after the
other, would lose their end.
"""

import functools
import struct
from typing import NamedTuple

from w2v_jax.data.containers import marks
from w2v_jax.data.containers.stream import Stream
from w2v_jax.errors import ClipError

KILOBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}  # by MPEG 1
RATES_HZ = (44_100, 48_000, 32_000)
SYNC = b"\xff"
SURE_FRAMES = 4  # as many headers of one kind in a row are never chance
VBRI_AT = 36
DECODER_DELAY = 529


class _Header(NamedTuple):
    size: int  # bytes of the frame
    samples: int
    rate_hz: int
    side: int  # bytes between the header and a Xing tag
    kind: tuple[bool, int, bool]  # does not change inside a stream: MPEG 1, rate, mono


class _Info(NamedTuple):
    frames: int | None  # that follow, as claimed
    trimmed: int  # samples that a decoder takes off both ends


class _Part(NamedTuple):
    """A run of frames that belong together."""

    at: list[int]  # of each frame, without the one that holds the claim
    end: int
    header: _Header
    info_at: int | None
    info: _Info | None


def starts_at(data: bytes, at: int) -> bool:
    """Tell whether frames of one kind start at `at`: four, or as many as there are up to the end."""
    first = header = _header(data, at)
    for _ in range(SURE_FRAMES):
        if header is None or first is None or header.kind != first.kind:
            return False
        at += header.size
        if at >= len(data):
            return at == len(data)
        header = _header(data, at)
    return True


def next_file(data: bytes, at: int) -> int:
    """Find the next place where mp3 frames start; the end of the data if there is none."""
    while (at := data.find(SYNC, at)) >= 0:
        if starts_at(data, at):
            return at
        at += 1
    return len(data)


def streams(data: bytes) -> tuple[list[Stream], int]:
    """Give the streams of an mp3 file, each behind a header that counts its frames, and their end.

    Raises:
        ClipError: the file ends inside a frame, or before the last frame that a Xing header counts.
    """
    parts, foreign = _parts(data)
    if not parts:
        return [Stream(data)], len(data)
    damage = f"{foreign} bytes inside are no mp3 frames" if foreign else ""
    return [_stream(data, part, damage) for part in parts], parts[-1].end


def _parts(data: bytes) -> tuple[list[_Part], int]:
    """Walk all frames; returns their runs, and how many bytes between them are neither frames nor tags."""
    parts: list[_Part] = []
    at, foreign = marks.end_of_id3(data), 0
    while at < len(data):
        header = _header(data, at)
        if header is None:
            if not parts:
                return [], 0  # no mp3: libsndfile knows what else it may be
            tags_end = marks.end_of_tags(data, at)
            following = _resume(data, tags_end)
            if following == len(data) or marks.next_file(data[tags_end : tags_end + 12], 0) == 0:
                break  # nothing more, or a file of another format
            if data[at] == 0 and _is_inside(data, following):
                tags_end = at  # zeros in place of frames
            foreign += following - tags_end
            at = following
            continue
        if at + header.size > len(data):
            raise ClipError("truncated", f"the last frame has {len(data) - at} of {header.size} bytes")
        info = _info(data, at, header)
        part = parts[-1] if parts else None
        full = part and part.info and part.info.frames and len(part.at) >= part.info.frames
        if part is None or info is not None or full or header.kind != part.header.kind:
            parts.append(_Part([], at, header, at if info else None, info))
        if info is None:
            parts[-1].at.append(at)
        at += header.size
        parts[-1] = parts[-1]._replace(end=at)
    return [part for part in parts if part.at], foreign


def _header(data: bytes, at: int) -> _Header | None:
    """Read the frame header at `at`; None where there is none of layer III."""
    return _parsed(data[at : at + 4])


@functools.lru_cache(1024)  # the frames of a file have few different headers
def _parsed(head: bytes) -> _Header | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    kilobits, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer != 1 or kilobits in (0, 15) or rate == 3:
        return None
    first = version == 3
    rate_hz = RATES_HZ[rate] >> (0 if first else 1 if version == 2 else 2)
    samples = 1152 if first else 576
    size = samples * 125 * KILOBITS[first][kilobits] // rate_hz + (head[2] >> 1 & 1)
    mono = head[3] >> 6 == 3
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return _Header(size, samples, rate_hz, side, (first, rate_hz, mono))


def _resume(data: bytes, at: int) -> int:
    """Find the next place with two frames in a row, or the end of the file."""
    while (at := data.find(SYNC, at)) >= 0:
        header = _header(data, at)
        if header is not None and (
            at + header.size == len(data) or _header(data, at + header.size) is not None
        ):
            return at
        at += 1
    return len(data)


def _is_inside(data: bytes, at: int) -> bool:
    """Tell whether the frame at `at` continues a file, as no first frame with a Xing header does."""
    header = _header(data, at)
    return header is not None and _info(data, at, header) is None


def _info(data: bytes, at: int, header: _Header) -> _Info | None:
    """Read what a frame without audio says about its stream; None for a frame with audio."""
    tag = at + 4 + header.side
    if data[at + VBRI_AT : at + VBRI_AT + 4] == b"VBRI":
        return _Info(None, 0)
    if data[tag : tag + 4] not in (b"Xing", b"Info") or tag + 8 > len(data):
        return None
    (flags,) = struct.unpack_from(">I", data, tag + 4)
    fields = 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    frames = struct.unpack_from(">I", data, tag + 8)[0] if flags & 1 and tag + 12 <= len(data) else None
    lame = tag + 8 + fields
    trimmed = 0
    if data[lame : lame + 4] in (b"LAME", b"Lavf", b"Lavc", b"GOGO") and lame + 24 <= at + header.size:
        both = int.from_bytes(data[lame + 21 : lame + 24], "big")
        trimmed = (both >> 12) + (both & 0xFFF)
    return _Info(frames or None, trimmed)


def _stream(data: bytes, part: _Part, damage: str) -> Stream:
    """Give a part as a file whose Xing header is right."""
    held, claimed = len(part.at), part.info and part.info.frames
    trimmed = part.info.trimmed if part.info else 0
    fewest = (held - 1) * part.header.samples - trimmed - DECODER_DELAY
    if claimed and claimed > held + 1 and not damage:  # some writers count the frame that holds the claim
        raise ClipError("truncated", f"{held} of {claimed} mp3 frames are there")
    if claimed and held <= claimed <= held + 1:
        start = part.info_at if part.info_at is not None else part.at[0]
        return Stream(data[start : part.end], max(fewest, 0), damage)
    first = part.at[0]
    return Stream(_xing(data, first, held, part.end - first) + data[first : part.end], max(fewest, 0), damage)


def _xing(data: bytes, at: int, frames: int, size_bytes: int) -> bytes:
    """Make a frame without audio that counts the frames behind it; the highest bit rate gives room."""
    head = bytes([0xFF, data[at + 1] | 1, 0xE0 | data[at + 2] & 0x0C, data[at + 3]])
    header = _parsed(head)
    assert header is not None
    tag = b"Xing" + struct.pack(">III", 3, frames, size_bytes + header.size)
    return (head + bytes(header.side) + tag).ljust(header.size, b"\0")
