"""`w2v-jax transcribe`: turn audio files into text, or into keywords, with a fine-tuned run."""

import dataclasses
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.report.units import by_reason
from w2v_jax.errors import ClipError, UserError

SHORTEST_WINDOW_SECONDS = 8.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeArguments:
    """Transcribe audio files (wav, flac, mp3, ogg) of any rate and length; print a line each, file and text.
    With a keyword run the line has the file, its most probable class and the probability of that.

    example: w2v-jax transcribe interview.mp3 clips --run runs/asr
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Audio files, or folders of them. The audio files of a folder and of the folders in it are read in the
    order of their paths; those that cannot be read are named and left out."""
    run: Path
    """Run folder of w2v-jax finetune; its best checkpoint is used."""
    window_seconds: float = 20.0
    """Length of a window, in seconds. Longer files are read in windows, which overlap, except those of a
    keyword run."""
    out: Path | None = None
    """File to write the lines to as well, as tab-separated values. Default: none, they are only printed."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(TranscribeArguments, argv, "w2v-jax transcribe")
    if not math.isfinite(options.window_seconds) or options.window_seconds < SHORTEST_WINDOW_SECONDS:
        raise UsageError(
            f"--window-seconds must be at least {SHORTEST_WINDOW_SECONDS:.0f}, got {options.window_seconds}"
        )
    xla_flags.configure_xla(1)
    from experiments.models.keyword_spotters import is_keyword_spotter
    from experiments.process.files import replace_file
    from experiments.recognition.transcriber import Classifier, Transcriber

    files = audio_files(options.files)
    kind = Classifier if is_keyword_spotter(options.run) else Transcriber
    transcriber = kind(options.run, options.window_seconds)
    lines, unread = [], {}
    for file in files:
        try:
            text = transcriber.file(file)
        except ClipError as error:
            unread[file] = error
            if files[file]:
                print(f"{file}: left out ({error})", file=sys.stderr, flush=True)
            continue
        lines.append(f"{file}\t{text}\n")
        print(lines[-1], end="", flush=True)
    if options.out is not None:
        replace_file(options.out, "".join(lines))
    if found := [file for file in unread if files[file]]:
        reasons = by_reason(Counter(unread[file].reason for file in found))
        print(f"left out: {len(found)} of {len(files)} files ({reasons})", file=sys.stderr)
    if bad := [f"{file} ({error})" for file, error in unread.items() if not (files[file] and lines)]:
        raise UserError(
            f"no audio that can be read in {'; '.join(bad[:3])}{' and others' * (len(bad) > 3)}: give wav, "
            "flac, mp3 or ogg files"
        )


def audio_files(paths: Sequence[Path]) -> dict[Path, bool]:
    """List the files to read; of a folder its audio files, sorted, also those of the folders in it.

    Audio in formats that are not read, links to folders and files that are no audio are counted on standard
    error.

    Args:
        paths: files and folders.

    Returns:
        Each file, and whether it was found in a folder.

    Raises:
        UserError: a folder holds no audio that can be read.
    """
    from experiments.data.importing.tree import Tree

    files: dict[Path, bool] = {}
    for path in paths:
        if not path.is_dir():
            files[path] = False
            continue
        try:
            tree = Tree(path)
        except UserError as error:
            raise UserError(f"{path} holds no files: give a folder with audio files") from error
        passed = Counter(held.reason for held in tree.left_out)
        if tree.others:
            passed["no audio"] = len(tree.others)
        if not tree.audio:
            raise UserError(f"{path} holds no wav, flac, mp3 or ogg file ({by_reason(passed)})")
        if passed:
            print(f"{path}: {len(tree.audio)} audio files; passed over: {by_reason(passed)}", file=sys.stderr)
        for name in tree.audio:
            files.setdefault(path / name, True)
    return files
