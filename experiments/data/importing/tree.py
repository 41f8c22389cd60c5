"""The files of a source, and the search for the file that a table or manifest means."""

import contextlib
import functools
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from w2v_jax.data.tables import SkippedClip
from w2v_jax.errors import UserError

AUDIO_SUFFIXES = (".wav", ".wave", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff")
# Audio in formats that this project does not read.
FOREIGN_SUFFIXES = (
    ".3gp", ".aac", ".amr", ".ape", ".au", ".caf", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp4", ".nist",
    ".pcm", ".ra", ".raw", ".shn", ".snd", ".sph", ".spx", ".voc", ".webm", ".wma", ".wv",
)  # fmt: skip
FOREIGN_DETAIL = "{suffix} is not read: convert it to wav, flac, mp3 or ogg"


def without_audio_suffix(name: str) -> str:
    """Remove the suffix of an audio file from its name or path."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in (*AUDIO_SUFFIXES, *FOREIGN_SUFFIXES) else name


class Tree:
    """The files of a source.

    Attributes:
        root: the source's folder, or the folder that holds the table which is the source.
        audio: paths of the audio files below the root, with slashes, sorted.
        others: paths of all other files below the root, sorted.
        left_out: audio in other formats and links to folders.
    """

    def __init__(self, source: Path):
        """List the files; hidden files and folders, whose names begin with a dot, are passed over.

        Raises:
            UserError: there is no such folder or file, or the folder holds no files.
        """
        if not source.exists():
            raise UserError(f"SOURCE: no such folder or table: {source}")
        self.root = source if source.is_dir() else source.parent
        self.audio: list[str] = []
        self.others: list[str] = []
        self.left_out: list[SkippedClip] = []
        if not source.is_dir():
            self.others.append(source.name)
            return
        for folder, folders, files in os.walk(source):
            below = Path(folder).relative_to(source)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in folders:
                if (Path(folder) / name).is_symlink():
                    detail = "links to folders are not followed: name the folder itself"
                    self._leave_out((below / name).as_posix(), "link to a folder", detail)
            for name in files:
                if not name.startswith("."):
                    self._add((below / name).as_posix())
        self.audio.sort()
        self.others.sort()
        if not self.audio and not self.others and not self.left_out:
            raise UserError(f"SOURCE: {source} holds no files")

    def _add(self, relative: str) -> None:
        suffix = PurePosixPath(relative).suffix.lower()
        if suffix in FOREIGN_SUFFIXES:
            self._leave_out(relative, f"{suffix} file", FOREIGN_DETAIL.format(suffix=suffix))
        elif suffix in AUDIO_SUFFIXES:
            self.audio.append(relative)
        else:
            self.others.append(relative)

    def _leave_out(self, relative: str, reason: str, detail: str) -> None:
        self.left_out.append(SkippedClip(path=relative, reason=reason, detail=detail))

    def named(self, *patterns: str) -> list[str]:
        """List the files besides audio whose name or last parts of the path match one of the patterns."""
        return [
            path for path in self.others if any(PurePosixPath(path).match(pattern) for pattern in patterns)
        ]

    @functools.cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """Paths of audio files by their names without folders and suffix."""
        found: dict[str, list[str]] = {}
        for path in self.audio:
            found.setdefault(without_audio_suffix(PurePosixPath(path).name), []).append(path)
        return found

    def find(self, text: str, folders: Iterable[Path]) -> Path | None:
        """Find the audio file that a table means.

        The path counts as it is, then below each of the folders. A file that was moved is found below the
        source by its name, where the last parts of its path leave one file.

        Args:
            text: a path, or a name without its suffix.
            folders: those that the path may be relative to.

        Returns:
            The file, or None where there is no such file or several could be meant.
        """
        text = text.replace("\\", "/")
        for folder in folders:
            with contextlib.suppress(OSError):  # a name too long for any file
                if (there := folder / text).is_file():  # an absolute path stays as it is
                    return there
        wanted = PurePosixPath(text)
        alike = self.by_stem.get(without_audio_suffix(wanted.name), [])
        exact = [path for path in alike if PurePosixPath(path).name == wanted.name]
        best = _closest(wanted.parent.parts, exact or alike)
        return self.root / best if best is not None else None


def _closest(folders: tuple[str, ...], paths: list[str]) -> str | None:
    """Choose the only path whose last folders agree with the most of the wanted ones."""
    if len(paths) < 2:
        return paths[0] if paths else None

    def agreement(path: str) -> int:
        pairs = zip(reversed(folders), reversed(PurePosixPath(path).parent.parts), strict=False)
        count = 0
        for ours, theirs in pairs:
            if ours != theirs:
                break
            count += 1
        return count

    scores = {path: agreement(path) for path in paths}
    best = [path for path in paths if scores[path] == max(scores.values())]
    return best[0] if len(best) == 1 else None
