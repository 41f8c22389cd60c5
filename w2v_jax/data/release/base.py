"""Parts that folders and tarballs of a release have in common."""

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

SPLIT_TABLES = ("validated.tsv", "train.tsv", "dev.tsv", "test.tsv")


@runtime_checkable
class Release(Protocol):
    """One locale of a release."""

    @property
    def locale(self) -> str: ...

    @property
    def tables(self) -> dict[str, bytes]:
        """Give the content of the split tables that there are, by name."""
        ...

    @property
    def clip_names(self) -> list[str]:
        """List the files of `clips/` once each, in the order in which `clips` reads them."""
        ...

    @property
    def repeated(self) -> Sequence[str]:
        """List the files that the archive holds more than once; the first one counts."""
        ...

    @property
    def fingerprint(self) -> str:
        """Give a digest that changes with the tables and with the names, sizes and order of the clips."""
        ...

    def clips(self, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents of the wanted clips, in the order of `clip_names`."""
        ...


def fingerprint(tables: Mapping[str, bytes], sizes: Mapping[str, int]) -> str:
    """Digest a release: its tables, and its clips' names and sizes in their order."""
    digest = hashlib.sha256()
    for name, data in sorted(tables.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    for name, size in sizes.items():
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
