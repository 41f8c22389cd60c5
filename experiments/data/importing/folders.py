"""Layouts that are trees of audio files: the path names the speaker, and text files hold transcripts."""

import dataclasses
import re
from pathlib import PurePosixPath

from experiments.data.importing.recording import (
    Found,
    Recording,
    text_lines,
)
from experiments.data.importing.tree import Tree, without_audio_suffix
from w2v_jax.errors import UserError

# Folders with these names say what is in them, and not who speaks.
GENERIC_FOLDERS = (
    "audio", "audios", "clips", "data", "files", "flac", "mp3", "ogg", "recordings", "sound", "sounds",
    "speech", "wav", "wavs", "waves",
)  # fmt: skip
TEXTS_BESIDE = (".txt", ".lab", ".normalized.txt")
ID_AND_TEXT = r"^(\S+)\s+(.*)$"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts:
    """Files whose lines hold an audio file's name and its transcript.

    Attributes:
        patterns: of the files' names or of their paths below the source.
        line: a regular expression; its first group is the name, its second one the transcript.
    """

    patterns: tuple[str, ...]
    line: str = ID_AND_TEXT


@dataclasses.dataclass(frozen=True, kw_only=True)
class TreeLayout:
    """The way in which a tree of audio files tells speakers, transcripts and splits.

    Attributes:
        speaker: a regular expression that is searched in a path below the source; its first group is the
            speaker. None names speakers after folders.
        texts: files of transcripts; None reads the text files beside the audio files.
        word_folders: whether the folder's name is the transcript and lists name the splits, as in Speech
            Commands.
    """

    speaker: str | None = None
    texts: Texts | None = None
    word_folders: bool = False


LAYOUTS = {
    "folders": TreeLayout(),
    "librispeech": TreeLayout(speaker=r"(?:^|/)(\d+)-\d+-\d+\.\w+$", texts=Texts(patterns=("*.trans.txt",))),
    "mls": TreeLayout(speaker=r"(?:^|/)(\d+)_\d+_\d+\.\w+$", texts=Texts(patterns=("transcripts.txt",))),
    "speech-commands": TreeLayout(speaker=r"(?:^|/)([^/]+)_nohash_\d+\.\w+$", word_folders=True),
    "ljspeech": TreeLayout(texts=Texts(patterns=("metadata.csv",), line=r"^([^|]+)\|(?:[^|]*\|)?([^|]*)$")),
}


def read(tree: Tree, layout: TreeLayout, texts: Texts | None = None) -> Found:
    """Read a tree of audio files.

    Args:
        tree: the source's files.
        layout: how the tree tells speakers, transcripts and splits.
        texts: files of transcripts that the user names, in place of the layout's.
    """
    found = Found(left_out=list(tree.left_out))
    paths = tree.audio
    if layout.word_folders:
        paths = [path for path in paths if not path.startswith("_") and "/_" not in path]
        for path in sorted(set(tree.audio) - set(paths)):
            found.leave_out(path, "background noise", "no word is spoken")
    if layout.speaker is None:
        speakers = by_folder(paths, found)
        found.speakers_from = "names of folders"
    else:
        speakers = by_pattern(paths, layout.speaker)
        found.speakers_from = "names of files"
    transcripts = _transcripts(tree, paths, layout, texts, found)
    splits = _listed_splits(tree, paths) if layout.word_folders else {}
    found.recordings = [
        Recording(
            name=path,
            path=tree.root / path,
            speaker=speakers[path],
            text=transcripts.get(path, ""),
            split=splits.get(path) or found.split_of_folders(path),
        )
        for path in paths
    ]
    return found


def by_pattern(paths: list[str], pattern: str) -> dict[str, str]:
    """Find each path's speaker: the pattern's first group, or all that it matches; empty without a match."""
    expression = re.compile(pattern)
    matches = {path: expression.search(path) for path in paths}
    return {
        path: (match[1] if match.re.groups else match[0]) or "" if match else ""
        for path, match in matches.items()
    }


def by_folder(paths: list[str], found: Found) -> dict[str, str]:
    """Name each path's speaker after its folder; folders for splits and for kinds of files do not count.

    Folders of one name in different places are told apart by the folders above them, and a note says so.
    """
    folders = {path: _speaker_folders(path, found) for path in paths}
    places: dict[str, dict[tuple[str, ...], None]] = {}
    for parts in folders.values():
        if parts:
            places.setdefault(parts[-1], {})[parts] = None
    repeated = {name: ["/".join(parts) for parts in held] for name, held in places.items() if len(held) > 1}
    if repeated:
        name, examples = next(iter(repeated.items()))
        more = f", and so are those of {len(repeated) - 1} other names" if len(repeated) > 1 else ""
        found.notes.append(
            f"folders named {name} are in {len(examples)} places ({', '.join(examples[:2])}){more}: they "
            "count as different speakers; give --speaker REGEX if they are not"
        )
    return {
        path: "" if not parts else "/".join(parts) if parts[-1] in repeated else parts[-1]
        for path, parts in folders.items()
    }


def _speaker_folders(path: str, found: Found) -> tuple[str, ...]:
    parts = PurePosixPath(path).parent.parts
    named = (part for part in parts if part.lower() not in GENERIC_FOLDERS)
    return tuple(part for part in named if not found.is_split_folder(part))


def _transcripts(
    tree: Tree, paths: list[str], layout: TreeLayout, texts: Texts | None, found: Found
) -> dict[str, str]:
    """Find the transcripts by the paths of the audio files."""
    if layout.word_folders and texts is None:
        found.texts_from = "names of folders"
        return {path: PurePosixPath(path).parent.name for path in paths}
    if (texts := texts or layout.texts) is None:
        return _beside(tree, paths, found)
    if not (files := tree.named(*texts.patterns)):
        raise UserError(f"no file below {tree.root} matches {' or '.join(texts.patterns)}: no transcripts")
    found.texts_from = f"{len(files)} files {' and '.join(texts.patterns)}"
    return _from_lines(tree, files, texts, found)


def _beside(tree: Tree, paths: list[str], found: Found) -> dict[str, str]:
    """Read the text file beside each audio file, where there is one."""
    there, transcripts, unreadable = set(tree.others), {}, 0
    read_files: set[str] = set()
    for path in paths:
        for suffix in TEXTS_BESIDE:
            beside = without_audio_suffix(path) + suffix
            if beside not in there:
                continue
            read_files.add(beside)
            try:
                transcripts[path] = " ".join(text_lines(tree.root / beside))
            except UserError:
                unreadable += 1
            break
    found.texts_from = "text files beside the audio files"
    if unreadable:
        found.notes.append(f"{unreadable} text files beside audio files are not UTF-8 and were not read")
    unread = [path for path in tree.named("*.txt", "*.csv", "*.tsv", "PROMPTS") if path not in read_files]
    if unread and len(transcripts) < len(paths):
        found.notes.append(
            f"{len(unread)} other text files were not read (such as {unread[0]}); --texts NAME reads files "
            "with lines of a name and a text, --table FILE reads a table"
        )
    return transcripts


def _from_lines(tree: Tree, files: list[str], texts: Texts, found: Found) -> dict[str, str]:
    """Read files with a name and a transcript in each line; the nearest audio file of that name is meant."""
    expression = re.compile(texts.line)
    transcripts: dict[str, str] = {}
    missed: dict[str, list[str]] = {}
    for file in files:
        for line in text_lines(tree.root / file):
            match = expression.match(line.strip())
            if match is None or match[1] is None:  # the pattern's first group may be optional
                missed.setdefault("lines without a name and a text", []).append(line.strip()[:40])
                continue
            stem = without_audio_suffix(PurePosixPath(match[1].replace("\\", "/")).name)
            near = _nearest(tree.by_stem.get(stem, []), PurePosixPath(file).parent)
            if len(near) == 1 and near[0] in transcripts:
                missed.setdefault("duplicate transcripts, which were not used", []).append(stem)
            elif len(near) == 1:
                transcripts[near[0]] = " ".join((match[2] or "").split())
            elif near:
                missed.setdefault("transcripts that fit several audio files", []).append(stem)
            else:
                missed.setdefault("transcripts without an audio file", []).append(stem)
    found.notes += [f"{len(lost)} {what} (such as {lost[0]})" for what, lost in missed.items()]
    return transcripts


def _nearest(paths: list[str], folder: PurePosixPath) -> list[str]:
    """Select the paths in the folder, or in the first folder above it that holds any."""
    for base in (folder, *folder.parents):
        if inside := [path for path in paths if PurePosixPath(path).is_relative_to(base)]:
            return inside
    return []


def _listed_splits(tree: Tree, paths: list[str]) -> dict[str, str]:
    """Read the splits of Speech Commands: two lists, and train is the rest; nothing without lists."""
    splits: dict[str, str] = {}
    for name, split in (("validation_list.txt", "dev"), ("testing_list.txt", "test")):
        for file in tree.named(name):
            folder = PurePosixPath(file).parent
            splits |= {(folder / line.strip()).as_posix(): split for line in text_lines(tree.root / file)}
    return {path: splits.get(path, "train") for path in paths} if splits else {}
