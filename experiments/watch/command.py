"""`w2v-jax watch`: runs as they go on, in the terminal. Imports no jax, to be there at once."""

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.live import Live

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.watch.run_state import Watched
from experiments.watch.view import view

WIDTH_WITHOUT_TERMINAL = 120  # characters


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchArguments:
    """Show how runs of pretrain or finetune go on: progress, metrics, curves. Ends when all are done.

    It only reads the folders; Ctrl-C ends the view and no run.

    example: w2v-jax watch runs/ten-clients-tiny-fedavg
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders; several are shown in a row each."""
    every_seconds: float = 2.0
    """Seconds between looks."""
    once: bool = False
    """Print it once and end, as is done where the output is no terminal."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(WatchArguments, argv, "w2v-jax watch")
    if not (math.isfinite(options.every_seconds) and options.every_seconds > 0):
        raise UsageError(f"--every-seconds must be positive and finite, got {options.every_seconds}")
    runs = [Watched(folder) for folder in options.runs]
    console = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False)
    if options.once or not sys.stdout.isatty() or console.is_dumb_terminal:
        console.print(view([run.look() for run in runs]))
        return
    follow(runs, console, options.every_seconds)


def follow(runs: Sequence[Watched], console: Console, every_seconds: float) -> None:
    """Show runs until all are done, or Ctrl-C."""
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                looks = [run.look() for run in runs]
                live.update(view(looks), refresh=True)
                if all(look.state == "done" for look in looks):
                    return
                time.sleep(every_seconds)
    except KeyboardInterrupt:
        return  # the way to leave
