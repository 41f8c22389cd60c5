"""`w2v-jax bench rounds`: rounds of this project and of every peer at equal work, interleaved in one run."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from experiments.bench.rounds.peers import environments
from experiments.bench.rounds.runners import CHILDREN, FEDJAX_RUNNERS, RUNNERS, STEP_RUNNERS, Runner
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance
from experiments.report.writer import write_report


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchRoundsArguments:
    """Time federated rounds by this project and by its peers, at equal work and with equal results.

    example: w2v-jax bench rounds --out bench/rounds --clients 8 32 --workloads toy
    """

    out: Path
    """Folder for rounds.json, rounds.md, rounds.png and step.json."""
    workloads: tuple[Literal["toy", "tiny", "dense", "base"], ...] = ("toy", "tiny")
    """Models and losses to time. toy has three convolutions and two layers, with a regression. tiny is
    wav2vec 2.0's loss on the tiny model. dense is a few products (no torch). base is its loss on base, with
    bf16, AdamW and batches of 4 x 5.5 s, for accelerators (no Flower)."""
    clients: tuple[int, ...] = (8, 32, 100)
    """Numbers of clients."""
    runners: tuple[str, ...] = tuple(RUNNERS)
    """Libraries to compare."""
    fedjax: bool = True
    """Also time fedjax's own FedAvg through its jit backend and through this project's vmap backend, on a
    model of products alone and on the toy model: fedjax.json."""
    single_step: bool = True
    """Also time one step of base, batch 1 of 5.5 s, beside transformers on torch: step.json."""
    repeats: int = 7
    """Number of timed turns, which are interleaved; two rounds before them are not timed."""
    rounds: int = 10
    """Largest number of rounds in a turn. A turn of short rounds lasts about a second."""
    make: bool = False
    """Make the peers' virtual environments first, under runs/peers; this takes minutes and some gigabytes."""


def check(options: BenchRoundsArguments) -> None:
    """Refuse options that cannot be measured.

    Raises:
        UsageError: an unknown runner, a number out of range, or environments that cannot be made here.
    """
    for name in options.runners:
        arguments.check_choice("--runners", name, RUNNERS)
    arguments.check_at_least(1, options, "clients", "repeats", "rounds")
    if options.make and not environments.in_a_checkout():
        raise UsageError("--make needs a checkout of w2v-jax, which peers import: run it from one")


def absent(runners: dict[str, Runner]) -> list[str]:
    """Return the names of runners whose environment is missing."""
    return [
        name
        for name, runner in runners.items()
        if runner.environment and environments.interpreter(runner.environment) is None
    ]


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(BenchRoundsArguments, argv, "w2v-jax bench rounds")
    check(options)
    options = dataclasses.replace(options, out=options.out.absolute())
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Runners start from the user's environment, without the settings of this process.
    environment = os.environ | CHILDREN
    xla_flags.configure_xla()
    wanted = {name: RUNNERS[name] for name in options.runners}
    if options.single_step:
        wanted |= STEP_RUNNERS
    if options.make:
        for name in sorted({runner.environment for runner in wanted.values() if runner.environment}):
            print(f"making the environment of {name}", flush=True)
            try:
                environments.make(name)
            except FileNotFoundError as error:
                print(f"not made: {error}", flush=True)
    missing = absent(wanted)
    if missing:
        print(f"not here: {', '.join(missing)} (--make makes their environments)", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    about = {
        "repeats": options.repeats,
        "rounds": options.rounds,
        "provenance": record_provenance("bench rounds", 0),
    }
    compare(options, missing, about, environment)
    print(f"written: {options.out}")


def compare(
    options: BenchRoundsArguments, missing: list[str], about: dict[str, Any], environment: Mapping[str, str]
) -> None:
    """Measure everything that was asked for, and write each report as soon as its rows are there.

    Args:
        options: the command's.
        missing: names of runners that are not here.
        about: turns, rounds and provenance, for each result.
        environment: environment variables of the runners.
    """
    from experiments.bench.rounds import figures, report
    from experiments.bench.rounds.measurement import measure

    def rows_of(workload: str, clients: int, runners: dict[str, Runner]) -> list[dict[str, Any]]:
        present = {name: runner for name, runner in runners.items() if name not in missing}
        folder = options.out / f"{workload}-{clients}"
        return measure(folder, workload, clients, present, options.repeats, options.rounds, environment)

    if options.single_step:
        left_out = [name for name in missing if name in STEP_RUNNERS]
        result = {"rows": rows_of("step", 1, STEP_RUNNERS), "absent": left_out, **about}
        write_report(options.out, "step", result, report.step_markdown)
    if options.fedjax:
        rows = []
        for workload in ("dense", "toy"):
            for clients in options.clients:
                rows += rows_of(workload, clients, FEDJAX_RUNNERS)
        write_report(options.out, "fedjax", {"rows": rows, "absent": [], **about}, report.fedjax_markdown)
    rows = []
    left_out = [name for name in missing if name in RUNNERS]
    for workload in options.workloads:
        for clients in options.clients:
            rows += rows_of(workload, clients, {name: RUNNERS[name] for name in options.runners})
            result = {"rows": rows, "absent": left_out, **about}
            write_report(options.out, "rounds", result, report.markdown, figures.draw)
