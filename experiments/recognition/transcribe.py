"""`w2v-jax transcribe`: turn audio files into text, or into keywords, with a fine-tuned run."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import tyro

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from w2v_jax.errors import ClipError, UserError

SHORTEST_WINDOW_SECONDS = 8.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeArguments:
    """Transcribe audio files (wav, flac, mp3, ogg) of any rate and length; print a line each, file and text.
    With a keyword run the line has the file, its most probable class and the probability of that.

    example: w2v-jax transcribe interview.mp3 clips/*.flac --run runs/asr
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Audio files."""
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

    kind = Classifier if is_keyword_spotter(options.run) else Transcriber
    transcriber = kind(options.run, options.window_seconds)
    lines, bad = [], []
    for file in options.files:
        try:
            text = transcriber.file(file)
        except ClipError as error:
            bad.append(f"{file} ({error})")
            continue
        lines.append(f"{file}\t{text}\n")
        print(lines[-1], end="", flush=True)
    if options.out is not None:
        replace_file(options.out, "".join(lines))
    if bad:
        raise UserError(
            f"no audio that can be read in {'; '.join(bad[:3])}{' and others' * (len(bad) > 3)}: give wav, "
            "flac, mp3 or ogg files"
        )
