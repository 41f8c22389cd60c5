"""`w2v-jax data import`: any folder of recordings becomes a corpus that all commands read."""

import dataclasses
import re
from pathlib import Path, PurePath
from typing import Literal

import tyro

from experiments.options import arguments
from experiments.options.errors import UsageError

Layout = Literal[
    "kaldi", "lhotse", "audiofolder", "voxpopuli", "fairseq", "nemo", "librispeech", "mls",
    "speech-commands", "ljspeech", "table", "folders",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportArguments:
    """Import a folder of recordings into the Common Voice layout, which all commands read.

    example: w2v-jax data import recordings --out corpora/mine --dry-run
    """

    source: tyro.conf.Positional[Path]
    """Folder of recordings, or a table or manifest that lists them."""
    out: Path | None = None
    """Folder to write the corpus into; it must be empty or not there yet. --dry-run needs none."""
    layout: Layout | None = None
    """Layout of the source. In folders, speakers are folders, and a transcript is the .txt file beside a
    recording. A table has a row for each recording. audiofolder is that of Hugging Face, with metadata.csv or
    metadata.jsonl. Default: the one that its files show."""
    speaker: str | None = None
    """Rule for speakers. With folder, the speaker is the folder that holds the file. With one, all recordings
    are one person's, and with file, each is another person's. Anything else is a regular expression that is
    searched in the path below the source, or in the utterance's name; its first group is the speaker.
    Default: the layout's rule."""
    table: str | None = None
    """Table that lists the recordings, by its path from the source: tabs, commas or JSON lines, also with
    .gz."""
    path_column: str | None = None
    """Column of audio files in the table. Default: found by usual names, such as path or file_name."""
    speaker_column: str | None = None
    """Column of speakers in the table. Default: found by usual names, such as speaker or client_id."""
    text_column: str | None = None
    """Column of transcripts in the table. Default: found by usual names, such as text or sentence."""
    texts: str | None = None
    """Name of the files below the source, such as *.trans.txt, whose lines hold a file's name and its
    text."""
    texts_line: str | None = None
    """Regular expression for a line of --texts; its first group is the name, its second one the text.
    Default: a word, white space and the text."""
    locale: str = "xx"
    """Language of the corpus, such as de, which names the folder in --out."""
    copy: bool = False
    """Copy audio files, so that the source may go; otherwise the corpus has links to them."""
    dry_run: bool = False
    """Say what would be imported, and write nothing."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(ImportArguments, argv, "w2v-jax data import")
    check(options)
    from experiments.data.importing import layouts, naming, summary, writing
    from experiments.data.importing.folders import ID_AND_TEXT, Texts
    from experiments.data.importing.tables import Columns
    from experiments.data.importing.tree import Tree

    if options.out is not None:
        writing.check_free(options.out)
    texts = None
    if options.texts is not None:
        texts = Texts(patterns=(options.texts,), line=options.texts_line or ID_AND_TEXT)
    columns = Columns(options.path_column, options.speaker_column, options.text_column)
    choices = layouts.Choices(layout=options.layout, table=options.table, columns=columns, texts=texts)
    tree = Tree(options.source)
    if options.table is not None:
        arguments.check_exists("--table", tree.root / options.table, "a table, by its path from SOURCE")
    layout, sign, found = layouts.understand(tree, choices)
    layouts.leave_out_unlisted(tree, layout, found)
    names = [recording.name for recording in found.recordings]
    naming.assign_speakers(found, options.speaker)
    clips = writing.measure(found)
    shown = f"layout: {layout}" + (f" ({sign} shows it; --layout NAME takes another)" if sign else "")
    told(shown, *summary.lines(found, clips))
    if not clips:
        raise UsageError(summary.nothing(found, names))
    if options.dry_run:
        told("dry run: nothing was written")
        return
    assert options.out is not None
    with writing.appearing(options.out) as partial:
        splits = writing.write(partial / options.locale, clips, copy=options.copy)
        facts = summary.facts(dataclasses.asdict(options), layout, found, clips)
        writing.write_record(partial / "import.json", found, clips, facts)
    told(*summary.written(options.out, options.locale, splits, clips, copy=options.copy))


def told(*lines: str) -> None:
    """Print lines; bytes of file names that are no UTF-8 become question marks."""
    print("\n".join(lines).encode("utf-8", "replace").decode(), flush=True)


def check(options: ImportArguments) -> None:
    """Check options against one another.

    Raises:
        UsageError: --out is missing, an option has no meaning, or a pattern is not valid.
    """
    if options.out is None and not options.dry_run:
        raise UsageError("--out is missing: name the folder to write, or give --dry-run")
    if not re.fullmatch(r"[A-Za-z0-9]+([-_][A-Za-z0-9]+)*", options.locale):
        raise UsageError(f"--locale takes a language such as de or zh-CN, got {options.locale}")
    if options.texts is not None and not PurePath(options.texts).parts:
        raise UsageError(f"--texts takes a file's name such as *.trans.txt, got '{options.texts}'")
    if options.texts_line is not None and options.texts is None:
        raise UsageError("--texts-line has a meaning with --texts alone")
    if options.table is not None and (options.layout not in (None, "table") or options.texts is not None):
        raise UsageError("--table reads the layout table: leave --layout and --texts out")
    for option, pattern, groups in (
        ("--speaker", options.speaker, 0),
        ("--texts-line", options.texts_line, 2),
    ):
        try:
            if pattern is not None and re.compile(pattern).groups < groups:
                raise UsageError(f"{option} needs {groups} groups in parentheses: the name and the text")
        except re.error as error:
            raise UsageError(f"{option} is no regular expression ({error}): {pattern}") from error
