"""A Common Voice release as its user has it: the tarball, read as a stream, or the unpacked folder."""

import bz2
import gzip
import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Callable, Container, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast, runtime_checkable

from w2v_jax.errors import CorpusError

SPLIT_TABLES = ("validated.tsv", "train.tsv", "dev.tsv", "test.tsv")

READ_BYTES = 2**18
END_OF_ARCHIVE_BYTES = 1024  # two blocks of zeros (POSIX ustar)

OnBytes = Callable[[int, int], None]  # (bytes read, bytes in all)


@runtime_checkable
class Release(Protocol):
    """One locale of a release."""

    @property
    def locale(self) -> str: ...

    @property
    def tables(self) -> dict[str, bytes]:
        """Content of the split tables that there are, by name."""
        ...

    @property
    def clip_names(self) -> list[str]:
        """Files of `clips/`, in the order in which `clips` reads them; each once."""
        ...

    @property
    def repeated(self) -> list[str]:
        """Files that the archive holds more than once; the first one counts."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes with the tables and with the names, sizes and order of the clips."""
        ...

    def clips(self, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
        """Names and contents of the wanted clips, in the order of `clip_names`."""
        ...


def open_release(source: Path, locale: str | None = None, on_bytes: OnBytes | None = None) -> Release:
    """The release at `source`, after one look at all of its names and tables.

    Args:
        source: a tarball (compressed or not), the unpacked folder, its locale's folder, or a parent.
        locale: which one, where there are several.
        on_bytes: called while a tarball is scanned.

    Raises:
        CorpusError: nothing there, no tarball, a truncated one, another layout, another locale, or a
            member whose name leads outside.
    """
    if source.is_dir():
        return FolderRelease(source, locale)
    if source.is_file():
        return TarRelease(source, locale, on_bytes)
    raise CorpusError(f"no such file or folder: {source} (expected a Common Voice tarball or folder)")


def _choose(found: list[str], locale: str | None, source: Path) -> str:
    """The prefix of the locale's folder among those that hold a validated.tsv."""
    named = {PurePosixPath(prefix).name: prefix for prefix in sorted(found)}
    if len(named) < len(found):
        raise CorpusError(f"{source} holds several releases ({', '.join(sorted(found))}): name one of them")
    if not found:
        raise CorpusError(
            f"{source} has no validated.tsv: expected the layout of Common Voice "
            "(cv-corpus-*/<locale>/validated.tsv and clips/)"
        )
    there = ", ".join(sorted(named))
    if locale is not None:
        if locale not in named:
            raise CorpusError(f"{source} has no locale {locale}: choose --locale from {there}")
        return named[locale]
    if len(found) > 1:
        raise CorpusError(f"{source} holds several locales ({there}): choose one with --locale")
    return found[0]


def _fingerprint(tables: dict[str, bytes], sizes: dict[str, int]) -> str:
    digest = hashlib.sha256()
    for name, data in sorted(tables.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    for name, size in sizes.items():
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


class FolderRelease:
    """An unpacked release; clips are read by name."""

    locale: str
    tables: dict[str, bytes]
    clip_names: list[str]
    repeated: list[str]
    fingerprint: str

    def __init__(self, source: Path, locale: str | None = None):
        folder = self._find(source, locale)
        self.locale = folder.resolve().name
        self._clips = folder / "clips"
        self.tables = {
            name: (folder / name).read_bytes() for name in SPLIT_TABLES if (folder / name).is_file()
        }
        files = sorted(self._clips.iterdir()) if self._clips.is_dir() else []
        sizes = {file.name: file.stat().st_size for file in files if file.is_file()}
        self.clip_names = list(sizes)
        self.repeated = []
        self.fingerprint = _fingerprint(self.tables, sizes)

    @staticmethod
    def _find(source: Path, locale: str | None) -> Path:
        """The locale's folder: `source`, a child, or a child's child (cv-corpus-*/<locale>)."""
        if (source / "validated.tsv").is_file():
            if locale is not None and source.resolve().name != locale:
                raise CorpusError(f"{source} is locale {source.resolve().name}, not {locale}")
            return source
        found = {
            str(table.parent.relative_to(source)): table.parent
            for pattern in ("*/validated.tsv", "*/*/validated.tsv")
            for table in source.glob(pattern)
        }
        return found[_choose(list(found), locale, source)]

    def clips(self, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
        """Names and contents, in the order of names."""
        for name in self.clip_names:
            if name in wanted:
                try:
                    yield name, (self._clips / name).read_bytes()
                except OSError:
                    yield name, b""  # one clip that cannot be read is one clip less


def _decompress(raw: Any) -> Any:
    """The archive itself, by the first bytes of the file."""
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

    locale: str
    tables: dict[str, bytes]
    clip_names: list[str]
    repeated: list[str]
    fingerprint: str

    def __init__(self, path: Path, locale: str | None = None, on_bytes: OnBytes | None = None):
        self._path = path
        tables: dict[str, dict[str, bytes]] = {}  # prefix -> name -> content
        sizes: dict[str, dict[str, int]] = {}  # prefix -> clip -> size
        repeated: dict[str, list[str]] = {}
        for archive, member in self._members(on_bytes):
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise CorpusError(f"{path} has a member that leads outside of it ({member.name!r}): refused")
            if not member.isfile():
                continue
            if name.name in SPLIT_TABLES:
                content = archive.extractfile(member)
                assert content is not None
                tables.setdefault(str(name.parent), {})[name.name] = content.read()
            elif name.parent.name == "clips":
                prefix = str(name.parent.parent)
                clips = sizes.setdefault(prefix, {})
                if name.name in clips:
                    repeated.setdefault(prefix, []).append(name.name)
                else:
                    clips[name.name] = member.size
        found = [prefix for prefix, names in tables.items() if "validated.tsv" in names]
        self._prefix = _choose(found, locale, path)
        self.locale = PurePosixPath(self._prefix).name or path.name.partition(".")[0]
        self.tables = tables[self._prefix]
        mine = sizes.get(self._prefix, {})
        self.clip_names = list(mine)
        self.repeated = repeated.get(self._prefix, [])
        self.fingerprint = _fingerprint(self.tables, mine)

    def clips(self, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
        """Names and contents, in the archive's order."""
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
