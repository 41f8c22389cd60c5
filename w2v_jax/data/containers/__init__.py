"""Find the audio streams that a file really holds; a header's claim alone is never believed."""

import dataclasses
import re

from w2v_jax.data.containers import flac, marks, mp3, ogg, wav
from w2v_jax.data.containers.stream import Stream

__all__ = ["UTF16_MARKS", "Stream", "foreign_format", "streams"]

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")  # the first two bytes of text in UTF-16


def streams(data: bytes) -> list[Stream]:
    """Split a file into its streams, each with a header that is true.

    Files that were joined give one stream each, also where their formats differ. Formats other than wav,
    aiff, flac, ogg and mp3 come back as they are. Bytes after the audio that are neither audio nor a tag
    are counted as the last stream's damage.

    Raises:
        ClipError: the file ends before its audio does, or its header contradicts its content.
    """
    found: list[Stream] = []
    at = marks.end_of_id3(data)
    while not found or data.startswith(marks.MAGIC, at) or mp3.starts_at(data, at):
        parts, end = _format_of(data, at).streams(data[at:])
        found += parts
        at = marks.end_of_tags(data, at + end)
    if at < len(data):
        damage = f"{len(data) - at} bytes after the audio are not read"
        found[-1] = dataclasses.replace(found[-1], damage=", ".join(filter(None, (found[-1].damage, damage))))
    return found


def _format_of(data: bytes, at: int):
    if data.startswith(marks.WAV, at):
        return wav
    if data.startswith(marks.OGG, at):
        return ogg
    return flac if data.startswith(marks.FLAC, at) else mp3


def foreign_format(data: bytes) -> str | None:
    """Name what a file without readable audio is, and what to do about it; None if unknown."""
    if data[4:8] == b"ftyp":
        return "an MP4 file (m4a): convert it to wav, flac, mp3 or ogg"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "a WebM or Matroska file: convert it to wav, flac, mp3 or ogg"
    if data[:4] == b"PK\x03\x04":
        return "a zip archive: unpack it"
    if re.match(rb"(?:\.\./)*(?:\.git)?/?annex/objects/", data):
        return "a git-annex pointer: run `git annex get` where it was cloned"
    if data.lstrip()[:1] == b"<":
        return "a web page or XML: download the clip again"
    if not re.search(rb"[^\t\n\r -~]", data[:1024]):
        return "text, no audio"
    return None
