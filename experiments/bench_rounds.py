"""`w2v-jax bench rounds`: our rounds and every peer's at equal work, interleaved in one run."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
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
STEPS = 4  # local steps a client, in both workloads
WARM_UP = 2  # rounds that are not timed


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

    def pause(self) -> None:
        """Let it and its children stand still, so that nothing of theirs runs beside another."""
        if self.runner.stops:
            self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of a pause."""
        if self.runner.stops:
            self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it and its children, if they have not ended."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

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


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(BenchRoundsArguments, argv, "w2v-jax bench rounds")
    check(options)
    runtime.configure_xla()
    from experiments import rounds_report

    if options.make:
        for name in {RUNNERS[r].environment for r in options.runners} - {None}:
            print(f"making the environment of {name}", flush=True)
            environments.make(str(name))
    missing = absent(options.runners)
    rows: list[dict[str, Any]] = []
    for workload in options.workloads:
        for clients in options.clients:
            rows += measure(options, workload, clients, [r for r in options.runners if r not in missing])
            result = {
                "rows": rows,
                "absent": missing,
                "repeats": options.repeats,
                "provenance": runtime.provenance("bench rounds"),
            }
            write_json(options.out / "rounds.json", result)
            replace_file(options.out / "rounds.md", rounds_report.markdown(result))
            rounds_report.draw(result, options.out / "rounds.png")
    print((options.out / "rounds.md").read_text(encoding="utf-8"))


def measure(
    options: BenchRoundsArguments, workload: str, clients: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """All contenders of one workload and K, interleaved: the fastest form of every runner."""
    from experiments import rounds_work

    folder = options.out / f"{workload}-{clients}"
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / "work.npz"
    rounds_work.write(work, workload, clients)
    started: list[Process] = []
    try:
        for name in names:
            for form in RUNNERS[name].forms:
                process = Process(name, form, work, folder)
                for _ in range(WARM_UP):
                    process.round()
                process.pause()
                started.append(process)
        for repeat in range(options.repeats):
            # Each begins a turn once in a while: what comes after what is not always the same.
            order = started[repeat % len(started) :] + started[: repeat % len(started)]
            for process in order:
                process.go_on()
                process.round()
                process.pause()
        for process in started:
            process.go_on()
            process.finish()
    finally:
        for process in started:
            process.kill()
        work.unlink(missing_ok=True)
    rows = [row(process, workload, clients, started) for process in started]
    for name in names:
        tried = [found for found in rows if found["runner"] == name]
        min(tried, key=lambda found: found["seconds_per_round"])["counts"] = True
    for found in rows:
        print(
            f"{workload} K={clients} {found['runner']} ({found['form']}): "
            f"{found['seconds_per_round']:.4f} s a round, {duration(found['startup_seconds'])} to start",
            flush=True,
        )
    return rows


def row(process: Process, workload: str, clients: int, started: Sequence[Process]) -> dict[str, Any]:
    """What is kept of a contender."""
    reference = next(held for held in started if held.name in ("loop", process.name))
    timed = process.seconds[WARM_UP:]
    median = float(np.median(timed))
    return {
        "workload": workload,
        "device": "cpu",
        "precision": "fp32",
        "clients": clients,
        "runner": process.name,
        "form": process.form,
        "counts": False,
        "seconds_per_round": median,
        "seconds_p10": float(np.percentile(timed, 10)),
        "seconds_p90": float(np.percentile(timed, 90)),
        "seconds": timed,
        "startup_seconds": process.startup_seconds,
        "first_round_seconds": process.seconds[0],
        "client_steps_per_second": clients * STEPS / median,
        "peak_bytes": process.end["peak_bytes"],
        "distance": distance(process.out, reference.out),
        "parameters_agree": distance(process.out, reference.out) <= AGREE,
    }


def distance(one: Path, other: Path) -> float:
    """Of two runners' last parameters, over the norm of the second's."""
    mine, theirs = np.load(one), np.load(other)
    if set(mine.files) != set(theirs.files):
        return float("inf")
    squares = sum(
        float(np.square(mine[name] - theirs[name], dtype=np.float64).sum()) for name in theirs.files
    )
    return (squares / sum(float(np.square(theirs[n], dtype=np.float64).sum()) for n in theirs.files)) ** 0.5


if __name__ == "__main__":
    from experiments.cli import run_command

    sys.exit(run_command("bench rounds", sys.argv[1:]))
