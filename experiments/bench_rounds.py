"""`w2v-jax bench rounds`: our rounds and every peer's at equal work, interleaved in one run."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments import arguments, runtime
from experiments.arguments import UsageError
from experiments.peers import environments
from experiments.progress import duration
from experiments.run_folder import replace_file, write_json

AGREE = 1e-4  # of the parameters' global norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runner:
    """One way to run a round.

    Attributes:
        module: of experiments.peers.
        environment: a peer's, or None for this one.
        forms: of convolutions; every one is a contender, and the fastest counts.
        stops: whether its processes may be stopped while others run.
    """

    module: str
    environment: str | None = None
    forms: tuple[str, ...] = ("lax", "product")
    stops: bool = True


RUNNERS = {
    "ours": Runner(module="ours"),
    "loop": Runner(module="loop"),
    "sequential": Runner(module="sequential"),
    "fedjax_jit": Runner(module="fedjax_round"),
    "drjax": Runner(module="drjax_round", environment="drjax"),
    "pfl": Runner(module="pfl_round", environment="pfl", forms=("torch",)),
    # Ray takes nodes that stand still for dead.
    "flower": Runner(module="flower_round", environment="flower", forms=("torch",), stops=False),
}
PEERS = tuple(name for name in RUNNERS if name not in ("ours", "sequential"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchRoundsArguments:
    """Seconds a round for K clients: this project and its peers at equal work, gated on equal parameters.

    example: w2v-jax bench rounds --out bench/rounds --clients 8 32 --workloads toy
    """

    out: Path
    """Folder for rounds.json, rounds.md and rounds.png."""
    workloads: tuple[Literal["toy", "tiny"], ...] = ("toy", "tiny")
    """toy: three convolutions and two layers, regression. tiny: wav2vec 2.0's loss on the tiny model."""
    clients: tuple[int, ...] = (8, 32, 100)
    """Numbers of clients K."""
    runners: tuple[str, ...] = tuple(RUNNERS)
    """Who takes part."""
    repeats: int = 7
    """Interleaved rounds that are timed, after two that are not."""
    make: bool = False
    """Make the peers' virtual environments first, under runs/peers: minutes, and some gigabytes."""


class Process:
    """A runner at work."""

    def __init__(self, name: str, form: str, work: Path, folder: Path):
        self.name, self.form, self.runner = name, form, RUNNERS[name]
        self.out = folder / f"{name}-{form}.npz"
        self.log = (folder / f"{name}-{form}.log").open("wb")
        python = sys.executable
        if self.runner.environment:
            python = str(environments.python_of(self.runner.environment))
        argv = [python, "-m", f"experiments.peers.{self.runner.module}", "--work", str(work)]
        argv += ["--out", str(self.out), *(("--form", form) if form != "torch" else ())]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=environments.ROOT,
            env=os.environ | {"PYTHONPATH": str(environments.ROOT)},
            start_new_session=True,
        )
        self.startup_seconds = self._answer()["startup_seconds"]
        self.seconds: list[float] = []
        self.end: dict[str, Any] = {}

    def round(self) -> None:
        """Run one round while the others stand still."""
        self.seconds.append(self._ask("round")["seconds"])

    def finish(self) -> None:
        """Let it write its parameters and end."""
        self.end = self._ask("finish")
        self._process.wait()
        self.log.close()

    def signal(self, number: int) -> None:
        """Stop, continue or end it with all its children."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _ask(self, word: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ({self.form}) ended; see {self.log.name}")
        return json.loads(line)


def check(options: BenchRoundsArguments) -> None:
    """Check what was asked for.

    Raises:
        UsageError: an unknown runner, or a number that cannot be.
    """
    for name in options.runners:
        if name not in RUNNERS:
            raise UsageError(arguments.nearest(name, list(RUNNERS), "runner"))
    if min((*options.clients, options.repeats)) < 1:
        raise UsageError("--clients and --repeats must be at least 1")


def absent(names: Sequence[str]) -> list[str]:
    """Runners whose environment is not there."""
    return [
        name
        for name in names
        if (env := RUNNERS[name].environment) and not environments.python_of(env).exists()
    ]
