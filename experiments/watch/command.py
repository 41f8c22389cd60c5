"""`w2v-jax watch`: show runs in the terminal while they go on. Imports no jax, so that it starts at once."""

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
from experiments.watch.run_state import RunReader
from experiments.watch.view import view

WIDTH_WITHOUT_TERMINAL = 120  # characters


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchArguments:
    """Show progress, metrics and curves of runs of pretrain or finetune. It ends when all runs are done.

    It only reads the folders; Ctrl-C ends the view and stops no run.

    example: w2v-jax watch runs/ten-clients-tiny-fedavg
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders; several are shown in one row each."""
    every_seconds: float = 2.0
    """Seconds between two readings of the folders."""
    once: bool = False
    """Print the view once and end, as happens anyway when the output is no terminal."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(WatchArguments, argv, "w2v-jax watch")
    if not (math.isfinite(options.every_seconds) and options.every_seconds > 0):
        raise UsageError(f"--every-seconds must be positive and finite, got {options.every_seconds}")
    runs = [RunReader(folder) for folder in options.runs]
    console = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False)
    if options.once or not sys.stdout.isatty() or console.is_dumb_terminal:
        console.print(view([run.read() for run in runs]))
        return
    follow(runs, console, options.every_seconds)


def follow(runs: Sequence[RunReader], console: Console, every_seconds: float) -> None:
    """Show runs until all are done, or Ctrl-C."""
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                states = [run.read() for run in runs]
                live.update(view(states), refresh=True)
                if all(run.state == "done" for run in states):
                    return
                time.sleep(every_seconds)
    except KeyboardInterrupt:
        return  # Ctrl-C is how to leave
