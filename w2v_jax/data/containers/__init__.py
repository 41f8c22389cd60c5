"""Find the audio streams that a file really holds; a header's claim alone is never believed."""

from w2v_jax.data.containers import flac, mp3, ogg, wav
from w2v_jax.data.containers.stream import Stream

__all__ = ["Stream", "foreign_format", "streams"]


def streams(data: bytes) -> list[Stream]:
    """Split a file into its streams, each with a header that is true.

    Files that were joined give one stream each. Formats other than wav, aiff, flac, ogg and mp3 come back
    as they are.

    Raises:
        ClipError: the file ends before its audio does, or its header contradicts its content.
    """
    audio = data[mp3.end_of_tag(data) :]
    if audio[:4] in wav.MAGIC:
        return wav.streams(audio)
    if audio[:4] == ogg.MAGIC:
        return ogg.streams(audio)
    if audio[:4] == flac.MAGIC:
        return flac.streams(audio)
    return mp3.streams(data)


def foreign_format(data: bytes) -> str | None:
    """Name what a file without readable audio is, and what to do about it; None if unknown."""
    if data[4:8] == b"ftyp":
        return "an MP4 file (m4a): convert it to wav, flac, mp3 or ogg"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "a WebM or Matroska file: convert it to wav, flac, mp3 or ogg"
    if data[:4] == b"PK\x03\x04":
        return "a zip archive: unpack it"
    if data.lstrip()[:1] == b"<":
        return "a web page or XML: download the clip again"
    return None
