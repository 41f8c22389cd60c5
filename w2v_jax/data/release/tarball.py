"""A release's tarball, read as a stream."""

import bz2
import codecs
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Container, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast

from w2v_jax.data import git_lfs
from w2v_jax.data.release import layouts
from w2v_jax.data.release.base import SPLIT_TABLES, Release, fingerprint
from w2v_jax.data.release.folder import FolderRelease
from w2v_jax.errors import CorpusError

READ_BYTES = 2**18
END_OF_ARCHIVE_BYTES = 1024  # two blocks of zeros (POSIX ustar)
CHOOSE_LOCALE = "choose one with --locale"
# Archives that are no tarballs, by their first bytes.
OTHER_ARCHIVES = {
    b"PK\x03\x04": "a zip archive: unpack it and name the folder",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it and name the folder",
    b"Rar!": "a rar archive: unpack it and name the folder",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: decompress it with `zstd -d`",
    git_lfs.POINTER: f"a Git LFS pointer: {git_lfs.ADVICE}",
}
# Text that is no archive, by how it begins in lower case.
WEB_PAGE = "a web page, not the archive: its link may have expired; download the archive again"
TABLE = "a table, not a release: name the folder that holds it and `clips`"
OTHER_TEXTS = {
    b"<!doctype html": WEB_PAGE,
    b"<html": WEB_PAGE,
    b"<?xml": WEB_PAGE,
    b"client_id": TABLE,
    b'"client_id': TABLE,
}

OnBytes = Callable[[int, int], None]  # (bytes read, bytes in all)


def open_release(source: Path, locale: str | None = None, on_bytes: OnBytes | None = None) -> Release:
    """Open the release at `source`, after one look at all of its names and tables.

    Args:
        source: a tarball (compressed or not), the unpacked folder, its locale's folder, or a parent.
        locale: which one, where there are several.
        on_bytes: called while a tarball is scanned.

    Raises:
        CorpusError: nothing there, no tarball, a truncated one, another layout, another locale, or a
            member whose name leads outside.
    """
    if source.is_dir():
        # pyright takes no cached_property for the property of a Protocol.
        return FolderRelease(source, locale, advice=CHOOSE_LOCALE)  # pyright: ignore[reportReturnType]
    if source.is_file():
        return TarRelease(source, locale, on_bytes)
    raise CorpusError(f"no such file or folder: {source} (expected a Common Voice tarball or folder)")


def _decompress(raw: Any) -> Any:
    """Open the archive itself, by the first bytes of the file."""
    start = raw.read(6)
    raw.seek(0)
    for magic, opener in ((b"\x1f\x8b", gzip.open), (b"\xfd7zXZ\0", lzma.open), (b"BZh", bz2.open)):
        if start.startswith(magic):
            return opener(raw, "rb")
    return raw


class _Tail:
    """A stream that remembers how much was read of it, and where its last byte other than zero ended."""

    def __init__(self, stream: Any):
        self._stream = stream
        self.count = self.last_byte = 0

    def read(self, count: int = -1) -> bytes:
        data = self._stream.read(count)
        if filled := len(data.rstrip(b"\0")):
            self.last_byte = self.count + filled
        self.count += len(data)
        return data


class TarRelease:
    """A tarball, read from front to back: once for names and tables, once for the clips."""

    def __init__(self, path: Path, locale: str | None = None, on_bytes: OnBytes | None = None):
        """Scan the archive.

        Raises:
            CorpusError: as `open_release`.
        """
        self._path = path
        listed: list[str] = []  # every table's path
        tables: dict[str, dict[str, bytes]] = {}  # prefix -> name -> content
        sizes: dict[str, dict[str, int]] = {}  # prefix -> clip -> size
        repeated: dict[str, list[str]] = {}
        self._check_kind()
        for archive, member in self._members(on_bytes):
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise CorpusError(f"{path} has a member that leads outside of it ({member.name!r}): refused")
            if not member.isfile():
                continue
            if name.parent.name == "clips":
                prefix = str(name.parent.parent)
                clips = sizes.setdefault(prefix, {})
                if name.name in clips:
                    repeated.setdefault(prefix, []).append(name.name)
                else:
                    clips[name.name] = member.size
            elif name.suffix in (".tsv", ".csv"):
                listed.append(str(name))
                if name.name in SPLIT_TABLES:
                    content = archive.extractfile(member)
                    assert content is not None
                    tables.setdefault(str(name.parent), {})[name.name] = content.read()
        self._prefix = layouts.choose(listed, locale, path, advice=CHOOSE_LOCALE)
        self.locale = PurePosixPath(self._prefix).name or path.name.partition(".")[0]
        self.tables = tables[self._prefix]
        mine = sizes.get(self._prefix, {})
        self.clip_names = list(mine)
        self.repeated = repeated.get(self._prefix, [])
        self.fingerprint = fingerprint(self.tables, mine)

    def _check_kind(self) -> None:
        with self._path.open("rb") as file:
            start = file.read(512)  # a tarball's first header, which holds NUL bytes
        what = next((what for magic, what in OTHER_ARCHIVES.items() if start.startswith(magic)), None)
        if what is None and self._path.suffix.lower() in (".tsv", ".csv"):
            what = TABLE
        elif what is None and b"\0" not in start:
            text = start.removeprefix(codecs.BOM_UTF8).lstrip().lower()
            what = next((kind for begin, kind in OTHER_TEXTS.items() if text.startswith(begin)), None)
        if what is not None:
            raise CorpusError(f"{self._path} is {what}")

    def clips(self, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents, in the archive's order."""
        folder = PurePosixPath(self._prefix) / "clips"
        seen: set[str] = set()
        for archive, member in self._members(None):
            name = PurePosixPath(member.name)
            if not member.isfile() or name.parent != folder or name.name in seen or name.name not in wanted:
                continue
            seen.add(name.name)
            content = archive.extractfile(member)
            assert content is not None
            yield name.name, content.read()

    def _members(self, on_bytes: OnBytes | None) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        size = self._path.stat().st_size
        count = 0
        try:
            with self._path.open("rb") as raw, _decompress(raw) as plain:
                stream = _Tail(plain)
                with tarfile.open(fileobj=cast(Any, stream), mode="r|", bufsize=READ_BYTES) as archive:
                    for member in archive:
                        count += 1
                        cast(Any, archive).members.clear()  # else every header stays in memory
                        if on_bytes is not None and count % 500 == 0:
                            on_bytes(raw.tell(), size)
                        yield archive, member
                # tarfile is content with an archive that stops between two members, and with a
                # compressed one whose checksum is missing or wrong.
                while stream.read(READ_BYTES):
                    pass
                # It also stops at a header that is damaged, as if the archive ended there.
                if stream.last_byte > archive.offset or stream.count < archive.offset + END_OF_ARCHIVE_BYTES:
                    raise EOFError("no end of archive")
        except (tarfile.ReadError, EOFError, zlib.error, OSError, lzma.LZMAError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise CorpusError(
                f"{self._path} is no tarball, or a damaged one or one cut short (after {count} members): "
                "get it again; nothing of it is used before it is whole"
            ) from error
        if on_bytes is not None:
            on_bytes(size, size)
