"""Whether an audio file was cut short, where its container says how long it should be.

Decoders accept a wav, mp3 or ogg that ends early and return what is there; flac raises by itself.
"""

import struct

UNKNOWN_SIZE = 0xFFFFFFFF  # streamed wav files
OGG_LAST_PAGE = 0x04


def is_truncated(data: bytes) -> bool:
    """True where a file's container promises more than the file holds; False where it promises nothing."""
    if data[:4] == b"RIFF" and len(data) >= 8:
        return _riff(data)
    if data[:4] == b"OggS":
        return _ogg(data)
    return _mp3(data)


def _riff(data: bytes) -> bool:
    (promised,) = struct.unpack_from("<I", data, 4)
    return promised != UNKNOWN_SIZE and promised + 8 > len(data)


def _ogg(data: bytes) -> bool:
    """The last page must be marked as the stream's last and be there in full (RFC 3533)."""
    start = data.rfind(b"OggS")
    if start + 27 > len(data):
        return True
    segments = data[start + 26]
    table = data[start + 27 : start + 27 + segments]
    whole = len(table) == segments and start + 27 + segments + sum(table) <= len(data)
    return not (whole and data[start + 5] & OGG_LAST_PAGE)


def _mp3(data: bytes) -> bool:
    """Bytes by the Xing or Info header of the first frame; files without one promise nothing."""
    start = 0
    if data[:3] == b"ID3" and len(data) >= 10:
        a, b, c, d = data[6:10]
        start = 10 + (a << 21 | b << 14 | c << 7 | d)
    start = data.find(b"\xff", start)
    for tag in (b"Xing", b"Info"):
        at = data.find(tag, start, start + 200)
        if start < 0 or at < 0 or at + 16 > len(data):
            continue
        (flags,) = struct.unpack_from(">I", data, at + 4)
        if flags & 2:
            (promised,) = struct.unpack_from(">I", data, at + 8 + 4 * (flags & 1))
            return start + promised > len(data)
    return False
