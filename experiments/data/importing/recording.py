"""The record that every reader of a layout makes of a recording, and the words that layouts share."""

import dataclasses
import gzip
import re
import zlib
from pathlib import Path, PurePosixPath

from w2v_jax.data.tables import SkippedClip
from w2v_jax.errors import UserError

# The words for a split in names of folders and files, and the split that each one means here.
SPLIT_WORDS = {
    "train": "train", "training": "train",
    "dev": "dev", "devel": "dev", "development": "dev", "val": "dev", "valid": "dev", "validation": "dev",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
SPLIT = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_WORDS)})(?![a-z])", re.IGNORECASE)
# The names of folders that hold a split, such as train-clean-100; a folder test_01 may be a speaker's.
SPLIT_FOLDER = re.compile(
    rf"({'|'.join(SPLIT_WORDS)})([-_ ]?(set|data|split))?([-_](clean|other)([-_]\d+)?)?", re.IGNORECASE
)
PIPE = "pipe"
PIPE_DETAIL = "the audio is the output of a command, which is not run: write it to a file first"
NO_VALUE = ("", "none", "nan", "null")  # as tables write a value that is not known, in any case


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """One recording of a source: a whole audio file, or a segment of one.

    Attributes:
        name: the name in the source, by which the clip is called: a path below the source, or an identifier.
        path: the audio file.
        speaker: empty where the source does not name one.
        text: the transcript; empty where there is none.
        start: seconds at which the segment begins; None for the file's beginning.
        end: seconds at which the segment ends; None for the file's end.
        channel: number of the only channel to take, from 0; None for all of them.
        split: "train", "dev" or "test"; empty where the source names none.
    """

    name: str
    path: Path
    speaker: str = ""
    text: str = ""
    start: float | None = None
    end: float | None = None
    channel: int | None = None
    split: str = ""


@dataclasses.dataclass(kw_only=True)
class Found:
    """The content of a source.

    Attributes:
        recordings: in the order of the source.
        speakers_from: the place where the source names the speakers, for the summary.
        texts_from: the place where the source holds transcripts, for the summary.
        left_out: recordings that cannot be imported, and why.
        notes: sentences about everything that was assumed.
        named: audio files that tables and manifests name, also in rows that were left out.
        split_folders: names of folders that were taken as splits, and the split of each.
    """

    recordings: list[Recording] = dataclasses.field(default_factory=list)
    speakers_from: str = ""
    texts_from: str = ""
    left_out: list[SkippedClip] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    named: set[Path] = dataclasses.field(default_factory=set)
    split_folders: dict[str, str] = dataclasses.field(default_factory=dict)

    def leave_out(self, name: str, reason: str, detail: str) -> None:
        """List a recording that cannot be imported."""
        self.left_out.append(SkippedClip(path=name, reason=reason, detail=detail))

    def is_split_folder(self, name: str) -> bool:
        """Tell whether a folder's whole name is that of a split, such as train-clean-100, and remember it."""
        if match := SPLIT_FOLDER.fullmatch(name):
            self.split_folders[name] = SPLIT_WORDS[match[1].lower()]
        return match is not None

    def split_of_folders(self, relative: str) -> str:
        """Find the split that the topmost such folder of a path names; empty without one."""
        parts = PurePosixPath(relative).parent.parts
        return next((self.split_folders[part] for part in parts if self.is_split_folder(part)), "")


def split_of_file(name: str) -> str:
    """Find the split that a file's name holds, such as `dev` in asr_dev.tsv; empty without one."""
    words = [SPLIT_WORDS[word.lower()] for word in SPLIT.findall(PurePosixPath(name).name)]
    return words[-1] if words else ""


def known(value: object) -> str:
    """Return a table's value as text without surplus white space; empty where the value is not known."""
    text = " ".join(str("" if value is None else value).split())
    return "" if text.lower() in NO_VALUE else text


def plain(text: str) -> str:
    """Return text that fits into a table's field: no tabs, line breaks or NUL bytes, and valid UTF-8."""
    return " ".join(text.replace("\0", " ").encode("utf-8", "replace").decode().split())


def content(path: Path) -> bytes:
    """Read a file, decompressed where its name ends in .gz.

    Raises:
        UserError: the file cannot be read or decompressed.
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def text_lines(path: Path) -> list[str]:
    """Read the lines of a text file that are not empty.

    Raises:
        UserError: the file cannot be read or is not UTF-8.
    """
    try:
        text = content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from error
    return [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]


def first_line(path: Path) -> str:
    """Read the beginning of a text file's first line; empty where the file holds no text."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.readline(2**16).decode("utf-8-sig").rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error):
        return ""
