"""FLAC (RFC 9639): the last frame says how many samples there are, whatever STREAMINFO claims.

Writers into a pipe leave the number of samples at zero, "unknown". Every frame's header has the number
of its first sample, so that one look at the last frame is enough.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from w2v_jax.data.containers import marks, mp3
from w2v_jax.data.containers.stream import Stream
from w2v_jax.errors import ClipError

# STREAMINFO comes first and has 34 bytes; its block is the last one or not.
STARTS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")
TOTAL = slice(21, 26)  # 36 bits, after 4 that belong to the sample size
BLOCK_SIZES = (0, 192, 576, 1152, 2304, 4608, 0, 0, *(256 << n for n in range(8)))
SEARCHED_BYTES = 2**20  # a frame is shorter
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
TRIES = 4  # bytes inside a frame seldom look like a header even once


class _Frame(NamedTuple):
    at: int
    end_sample: int


def streams(data: bytes) -> tuple[list[Stream], int]:
    """Give the stream of the FLAC file at the start of `data`, and the place where that file ends.

    Raises:
        ClipError: the last frame is incomplete, or frames are missing at the end.
    """
    if len(data) < 42 or data[:8] not in STARTS:
        return [Stream(data)], len(data)
    first = _first_frame(data)
    audio = data[: marks.next_file(data, first)]
    end = _end_of_last_frame(audio)
    if end is None:  # the bytes at the end are no frame: an mp3 file, perhaps
        audio = audio[: mp3.next_file(audio, first)]
        end = _end_of_last_frame(audio)
    return [_stream(audio, len(audio) if end is None else end)], len(audio) if end is None else end


def _first_frame(data: bytes) -> int:
    """Find where the metadata blocks end; they may quote the header of a wav file."""
    at = 4
    while at + 4 <= len(data):
        is_last, size = data[at] & 0x80, int.from_bytes(data[at + 1 : at + 4], "big")
        at += 4 + size
        if is_last:
            break
    return min(at, len(data))


def _end_of_last_frame(data: bytes) -> int | None:
    """Find where the last frame ends if nothing or tags follow it; None if its checksum is wrong."""
    for frame in itertools.islice(_frames_from_the_end(data), TRIES):
        if not _crc16(data[frame.at :]):
            return len(data)
        for tag in TAGS:
            place = data.find(tag, frame.at)
            if (
                place >= 0
                and marks.end_of_tags(data, place) == len(data)
                and not _crc16(data[frame.at : place])
            ):
                return place
    return None


def _stream(data: bytes, end: int) -> Stream:
    claimed = int.from_bytes(data[TOTAL], "big") & (2**36 - 1)
    data = data[:end]
    frames = itertools.islice(_frames_from_the_end(data), TRIES)
    last = next(frames, None)
    if last is not None and last.end_sample == claimed:
        damage = (
            "the last frame's checksum is wrong, or other bytes follow it" if _crc16(data[last.at :]) else ""
        )
        return Stream(data, claimed, damage)
    while last is not None and _crc16(data[last.at :]):
        last = next(frames, None)  # bytes inside a frame that look like a header
    if last is None or last.end_sample < claimed:
        held = "the last frame is incomplete" if last is None else f"{last.end_sample} samples are there"
        raise ClipError("truncated", f"{held}, of {claimed or 'an unknown number'}")
    total = (data[21] & 0xF0) << 32 | last.end_sample
    return Stream(data[:21] + total.to_bytes(5, "big") + data[26:], last.end_sample)


def _frames_from_the_end(data: bytes) -> Iterator[_Frame]:
    """Find the places that hold a valid frame header, the last one first."""
    at = len(data)
    lowest = max(42, at - SEARCHED_BYTES)
    while (at := max(data.rfind(b"\xff\xf8", lowest, at), data.rfind(b"\xff\xf9", lowest, at))) >= 0:
        frame = _frame(data, at)
        if frame is not None:
            yield frame
        at += 1  # the end of a search is exclusive, and headers do not overlap


def _frame(data: bytes, at: int) -> _Frame | None:
    """Read the frame whose header is at `at`; None if there is no valid one."""
    head = data[at : at + 16].ljust(16, b"\0")
    if head[3] & 1 or head[2] >> 4 == 0:
        return None
    ones = next((n for n in range(8) if not head[4] & 0x80 >> n), 8)
    if ones in (1, 8):
        return None
    more = max(ones - 1, 0)
    number = head[4] & 0x7F >> ones
    for byte in head[5 : 5 + more]:
        number = number << 6 | byte & 0x3F
    place, code = 5 + more, head[2] >> 4
    size_bytes = code - 5 if code in (6, 7) else 0
    block = int.from_bytes(head[place : place + size_bytes], "big") + 1 if size_bytes else BLOCK_SIZES[code]
    place += size_bytes + {12: 1, 13: 2, 14: 2}.get(head[2] & 0x0F, 0)
    if place >= len(head) or _crc8(head[:place]) != head[place]:
        return None
    nominal = int.from_bytes(data[8:10], "big")
    return _Frame(at, (number if head[1] & 1 else number * nominal) + block)


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 ^ (0x107 if crc & 0x80 else 0)
    return crc


def _crc16(data: bytes) -> int:
    """Compute the CRC-16, which is zero for a whole frame with its checksum."""
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFF00) ^ _CRC16[crc >> 8 ^ byte]
    return crc


def _crc16_of(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = crc << 1 ^ (0x18005 if crc & 0x8000 else 0)
    return crc


_CRC16 = [_crc16_of(byte) for byte in range(256)]
