"""Bytes that show where an audio file or a tag starts."""

import re

WAV, OGG, FLAC = (b"RIFF", b"RIFX", b"RF64", b"FORM"), b"OggS", b"fLaC"
MAGIC = (*WAV, OGG, FLAC)
ID3V1_BYTES, ID3V1_EXTENDED_BYTES, APE_HEADER_BYTES = 128, 227, 32
# The start of any file but mp3, long enough that audio never looks like it.
_START = re.compile(
    rb"fLaC[\x00\x80]\x00\x00\x22|(?:RIFF|RIFX|RF64)....WAVE|FORM....AIF[FC]|OggS\x00\x02", re.DOTALL
)
_ZEROS = re.compile(rb"\x00*")
_LYRICS_END = re.compile(rb"LYRICS200|LYRICSEND")


def next_file(data: bytes, at: int) -> int:
    """Find the next wav, aiff, flac or ogg file at `at` or later; the end of the data if there is none."""
    found = _START.search(data, at)
    return found.start() if found else len(data)


def end_of_id3(data: bytes, at: int = 0) -> int:
    """Find where ID3v2 tags that start at `at` end."""
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        a, b, c, d = data[at + 6 : at + 10]
        at += 10 + (a << 21 | b << 14 | c << 7 | d)
    return at


def end_of_tags(data: bytes, at: int) -> int:
    """Find where tags (ID3, APE, Lyrics3) and zeros that start at `at` end."""
    while at < len(data):
        start = at
        if zeros := _ZEROS.match(data, at):
            at = zeros.end()
        if data.startswith(b"TAG", at):
            at += ID3V1_EXTENDED_BYTES if data.startswith(b"TAG+", at) else ID3V1_BYTES
        elif data.startswith(b"APETAGEX", at):
            is_header = data[at + 20 : at + 24].ljust(4, b"\0")[3] & 0x20
            at += APE_HEADER_BYTES + (int.from_bytes(data[at + 12 : at + 16], "little") if is_header else 0)
        elif data.startswith(b"LYRICSBEGIN", at):
            end = _LYRICS_END.search(data, at)
            at = end.end() if end else len(data)
        else:
            at = end_of_id3(data, at)
        if at == start:
            return at
    return len(data)
