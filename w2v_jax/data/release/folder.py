"""An unpacked release."""

import functools
import os
from collections.abc import Container, Iterator
from pathlib import Path

from w2v_jax.data.release import layouts
from w2v_jax.data.release.base import SPLIT_TABLES, fingerprint
from w2v_jax.errors import CorpusError


class FolderRelease:
    """An unpacked release; clips are read by name.

    Attributes:
        folder: the locale's folder.
    """

    repeated: tuple[str, ...] = ()  # a folder holds no name twice

    def __init__(
        self,
        source: Path,
        locale: str | None = None,
        *,
        split: str = "validated",
        advice: str = "name one of them",
    ):
        """Find the locale: `source` itself, a child, or a child's child (cv-corpus-*/<locale>).

        Raises:
            CorpusError: no such folder, or as `layouts.choose`.
        """
        if not source.is_dir():
            raise CorpusError(f"no such folder: {source} (expected a Common Voice locale with validated.tsv)")
        files = [
            path.relative_to(source).as_posix()
            for depth in range(layouts.DEEPEST)
            for suffix in ("tsv", "csv")
            for path in source.glob("*/" * depth + f"*.{suffix}")
        ]
        here = [file for file in files if "/" not in file]
        tables = {f"{name}.tsv" for name in (*layouts.TABLES, split)}
        self.folder = source
        if not tables & set(here) or locale is not None:
            self.folder = source / layouts.choose(files, locale, source, split=split, advice=advice)
        self.locale = self.folder.resolve().name

    @functools.cached_property
    def tables(self) -> dict[str, bytes]:
        """Give the content of the split tables that there are, by name."""
        paths = {name: self.folder / name for name in SPLIT_TABLES}
        return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}

    @functools.cached_property
    def clip_names(self) -> list[str]:
        """List the files of `clips/`, sorted; a link counts where it leads to a file."""
        clips = self.folder / "clips"
        if not clips.is_dir():
            return []
        with os.scandir(clips) as entries:
            return sorted(entry.name for entry in entries if entry.is_file())

    @functools.cached_property
    def fingerprint(self) -> str:
        """Give a digest that changes with the tables and with the names and sizes of the clips."""
        sizes = {name: (self.folder / "clips" / name).stat().st_size for name in self.clip_names}
        return fingerprint(self.tables, sizes)

    def clips(self, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents, in the order of names."""
        for name in self.clip_names:
            if name in wanted:
                try:
                    yield name, (self.folder / "clips" / name).read_bytes()
                except OSError:
                    yield name, b""  # one clip that cannot be read is one clip less
