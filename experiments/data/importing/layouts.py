"""The layouts by name: how each one is recognised, and which reader reads it."""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from experiments.data.importing import folders, lhotse, manifests, tables
from experiments.data.importing.recording import Found, first_line, split_of_file
from experiments.data.importing.tree import Tree
from w2v_jax.data.tables import REQUIRED_COLUMNS
from w2v_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """The choices of the user about a layout; None where the layout's own rule counts.

    Attributes:
        layout: the layout's name.
        table: a table that lists the recordings, below the source.
        columns: names of its columns.
        texts: files of transcripts.
    """

    layout: str | None = None
    table: str | None = None
    columns: tables.Columns = tables.GUESSED
    texts: folders.Texts | None = None


def _listing_tables(tree: Tree) -> list[str]:
    """List the tables that name audio files, from the topmost folder that holds any."""
    found = [file for file in tree.others if tables.is_table(file)]
    if len(tree.others) > 1 or tree.audio:  # where the source is a table, its rows may name files anywhere
        found = [file for file in found if tables.lists_audio(tree, file)]
    top = min((len(PurePosixPath(file).parts) for file in found), default=0)
    return [file for file in found if len(PurePosixPath(file).parts) == top]


def _audiofolder_tables(tree: Tree) -> list[str]:
    files = tree.named("metadata.csv", "metadata.jsonl")
    return [file for file in files if "file_name" in tables.header(tree.root / file)]


def _nemo_manifests(tree: Tree) -> list[str]:
    files = [file for file in tree.others if file.endswith((".json", ".jsonl", ".json.gz", ".jsonl.gz"))]
    return [file for file in files if "audio_filepath" in tables.header(tree.root / file)]


def _voxpopuli_tables(tree: Tree) -> list[str]:
    return [file for file in tree.named("asr_*.tsv") if split_of_file(file)]


def _lhotse_manifests(tree: Tree) -> list[str]:
    names = [f"*{kind}*.jsonl{end}" for kind in lhotse.KINDS for end in ("", ".gz")]
    fields = {"recording", "recording_id", "sources", "supervisions"}
    return [file for file in tree.named(*names) if fields & set(tables.header(tree.root / file))]


def _ljspeech_tables(tree: Tree) -> list[str]:
    files = tree.named("metadata.csv")
    return [file for file in files if re.match(r"[^|,;\t]+\|", first_line(tree.root / file))]


# Layouts with a row for each recording, and the search for their tables.
TABLES: dict[str, Callable[[Tree], list[str]]] = {
    "audiofolder": _audiofolder_tables,
    "voxpopuli": _voxpopuli_tables,
    "nemo": _nemo_manifests,
    "table": _listing_tables,
}
MANIFESTS: dict[str, Callable[[Tree], Found]] = {
    "kaldi": manifests.read_kaldi,
    "lhotse": lhotse.read,
    "fairseq": manifests.read_fairseq,
}
# The files by which a layout is recognised, in the order of trial.
SIGNS: dict[str, Callable[[Tree], Sequence[str]]] = {
    "kaldi": lambda tree: tree.named("wav.scp"),
    "lhotse": _lhotse_manifests,
    "audiofolder": _audiofolder_tables,
    "voxpopuli": _voxpopuli_tables,
    "fairseq": lambda tree: [f for f in tree.named("*.tsv") if manifests.is_fairseq(tree.root / f)],
    "nemo": _nemo_manifests,
    "librispeech": lambda tree: tree.named("*.trans.txt"),
    "mls": lambda tree: tree.named("transcripts.txt"),
    "speech-commands": lambda tree: [path for path in tree.audio if "_nohash_" in path],
    "ljspeech": _ljspeech_tables,
    "table": _listing_tables,
    "folders": lambda tree: tree.audio,
}
NAMES = tuple(SIGNS)


def understand(tree: Tree, choices: Choices) -> tuple[str, str, Found]:
    """Read the source in the layout that the user names, or in the one that its files show.

    Returns:
        The layout, the file by which it was recognised (empty where the user names it), and its content.

    Raises:
        UserError, CorpusError: no layout fits, the source is in the layout of Common Voice already, or a file
            of it cannot be read.
    """
    if choices.table is not None:
        return "table", "", tables.read(tree, [choices.table], choices.columns)
    if choices.layout is not None:
        return choices.layout, "", _read(tree, choices.layout, choices)
    _refuse_common_voice(tree)
    if choices.texts is not None:
        return "folders", "", _read(tree, "folders", choices)
    for layout, sign in SIGNS.items():
        if files := sign(tree):
            return layout, files[0], _read(tree, layout, choices)
    if tree.left_out:
        skip = tree.left_out[0]
        raise UserError(
            f"SOURCE: {tree.root} holds no audio that is read here: {len(tree.left_out)} files or folders "
            f"such as {skip.path} ({skip.detail})"
        )
    example = tree.others[0]
    raise UserError(
        f"SOURCE: {tree.root} holds no recordings in a layout that is known ({', '.join(NAMES)}); it holds "
        f"{len(tree.others)} other files, such as {example}; an archive must be unpacked first"
    )


def _read(tree: Tree, layout: str, choices: Choices) -> Found:
    if choices.columns != tables.GUESSED and layout not in TABLES:
        raise UserError(f"--path-column and its like are for tables, not for {layout}: give --table FILE")
    if choices.texts is not None and layout not in folders.LAYOUTS:
        raise UserError(f"--texts is for {', '.join(folders.LAYOUTS)}, not for {layout}: leave it out")
    if layout in MANIFESTS:
        return MANIFESTS[layout](tree)
    if layout in folders.LAYOUTS:
        return folders.read(tree, folders.LAYOUTS[layout], choices.texts)
    files = TABLES[layout](tree)
    if layout == "table" and not files and len(tree.others) == 1:
        files = tree.others  # the source is a table, whose columns the message will name
    if not files:
        raise UserError(f"{tree.root} holds no table of the layout {layout}; --table FILE names one")
    return tables.read(tree, files, choices.columns)


def _refuse_common_voice(tree: Tree) -> None:
    """Refuse a folder that commands read as it is.

    Raises:
        UserError: a table has the columns of Common Voice, with a folder of clips beside it.
    """
    files = tree.named("validated.tsv", "train.tsv", "dev.tsv", "test.tsv", "other.tsv")
    for file in sorted(files, reverse=True):  # validated.tsv first
        locale = tree.root / Path(file).parent
        if set(REQUIRED_COLUMNS) <= set(tables.header(tree.root / file)) and (locale / "clips").is_dir():
            raise UserError(
                f"SOURCE: {locale} is in the layout of Common Voice already ({Path(file).name} and clips/): "
                "give it to --data as it is"
            )


def leave_out_unlisted(tree: Tree, layout: str, found: Found) -> None:
    """List the audio files below the source that its tables do not name, and those of formats not read.

    A file that a row names is listed once: as a recording, or with the reason for which the row was left out.
    """
    if layout in folders.LAYOUTS:
        return  # these take every audio file
    named = {os.path.realpath(path) for path in found.named}
    found.left_out[:0] = [s for s in tree.left_out if os.path.realpath(tree.root / s.path) not in named]
    for path in tree.audio:
        if os.path.realpath(tree.root / path) not in named:
            found.leave_out(path, "not listed", f"no recording of the layout {layout} refers to it")
