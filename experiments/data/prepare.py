"""`w2v-jax data prepare`: make a data set that opens at once of a Common Voice tarball or folder."""

import dataclasses
import time
from pathlib import Path

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.files import read_json
from experiments.report.units import by_reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareArguments:
    """Decode a release once to 16 kHz int16 ArrayRecord shards; run the same command again to continue.

    A tarball is read as a stream and never unpacked. tensorflow_datasets opens the result
    (tfds.builder_from_directory), and so do pretrain and data describe.

    example: w2v-jax data prepare --source cv-corpus-7.0-2021-07-21-it.tar.gz --out prepared/it
    """

    source: Path
    """Tarball of a release, or its unpacked folder."""
    out: Path
    """Folder of the new data set. While it is made, its name ends in .incomplete."""
    locale: str | None = None
    """Locale to prepare, if the release holds several. Default: the only one."""
    workers: int | None = None
    """Number of decoding threads. Default: one for each core."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(PrepareArguments, argv, "w2v-jax data prepare")
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers must be positive, got {options.workers}")
    arguments.check_exists("--source", options.source, "a Common Voice tarball or folder")
    started = time.perf_counter()
    _prepare(options)
    from w2v_jax.data.prepared import records

    manifest = read_json(options.out / records.MANIFEST)
    for name, split in manifest["splits"].items():
        hours, shards = split["seconds"] / 3600, len(split["shards"])
        print(f"{name}: {split['clips']} clips, {hours:.2f} h, {shards} shards")
    left_out = by_reason(manifest["skipped_by_reason"], none="nothing")
    print(f"left out: {left_out} (listed in {options.out / records.SKIPPED})")
    if changed := by_reason(manifest["changed_by_reason"]):
        print(f"changed: {changed} (listed in {options.out / records.CHANGED})")
    print(f"prepared: {options.out} in {time.perf_counter() - started:.0f} s")


def _prepare(options: PrepareArguments) -> None:
    """Prepare the release, with a bar on a terminal and a line now and then elsewhere."""
    import rich.console
    import rich.progress as bars

    from w2v_jax.data.prepared import preparation

    console = rich.console.Console(highlight=False, soft_wrap=True)
    bar = bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[text]}"),
        console=console,
        disable=not console.is_terminal,
    )
    lines = _Lines(silent=console.is_terminal)
    with bar:
        scan = bar.add_task("reading names", total=None, text="")
        decode = bar.add_task("decoding", total=None, text="", visible=False)

        def on_bytes(done: int, total: int) -> None:
            bar.update(scan, completed=done, total=total)

        def on_progress(now: preparation.Progress) -> None:
            hours = now.seconds_of_audio / 3600
            text = f"{hours:.2f} h of audio, {now.skipped_clips} clips left out"
            bar.update(decode, completed=now.done_clips, total=now.total_clips, text=text, visible=True)
            lines.maybe(f"{now.done_clips} of {now.total_clips} clips, {text}")

        preparation.prepare(
            options.source,
            options.out,
            locale=options.locale,
            workers=options.workers or xla_flags.usable_cores(),
            on_bytes=on_bytes,
            on_progress=on_progress,
        )


class _Lines:
    """Print a plain line now and then where there is no terminal for a bar."""

    def __init__(self, silent: bool, every_seconds: float = 15.0):
        self._silent, self._every, self._last = silent, every_seconds, time.perf_counter()

    def maybe(self, text: str) -> None:
        """Print unless the last line was printed only moments ago."""
        now = time.perf_counter()
        if not self._silent and now - self._last > self._every:
            self._last = now
            print(text, flush=True)
