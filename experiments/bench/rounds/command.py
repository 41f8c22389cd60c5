"""`w2v-jax bench rounds`: our rounds and every peer's at equal work, interleaved in one run."""

import dataclasses
import functools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.bench.rounds import work as rounds_work
from experiments.bench.rounds.peers import environments
from experiments.bench.rounds.runners import CHILDREN, FEDJAX_RUNNERS, RUNNERS, STEP_RUNNERS, Process, Runner
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.child_process import run_in_child
from experiments.process.files import replace_file, write_json
from experiments.process.provenance import record_provenance
from experiments.report.units import duration
from w2v_jax.errors import UserError

REFERENCES = ("loop", "torch_fp32", "fedjax_jit", "ours_fp32")  # the first one that takes part
AGREE = 1e-4  # of the parameters' global norm
WARM_UP = 2  # rounds that are not timed
TURN_SECONDS = 1.0  # a turn is one round, or more where they are shorter than this
SLOWER = 1.3  # times the seconds of a runner's best form: such forms are not timed further


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchRoundsArguments:
    """Seconds a round for K clients: this project and its peers at equal work, gated on equal parameters.

    example: w2v-jax bench rounds --out bench/rounds --clients 8 32 --workloads toy
    """

    out: Path
    """Folder for rounds.json, rounds.md and rounds.png, and step.json."""
    workloads: tuple[Literal["toy", "tiny", "dense", "base"], ...] = ("toy", "tiny")
    """toy: three convolutions and two layers, regression. tiny: wav2vec 2.0's loss on the tiny model. dense:
    a few products (no torch). base: wav2vec 2.0's loss on base, bf16, AdamW, batches of 4 x 5.5 s, for
    accelerators (no Flower)."""
    clients: tuple[int, ...] = (8, 32, 100)
    """Numbers of clients K."""
    runners: tuple[str, ...] = tuple(RUNNERS)
    """Who takes part."""
    fedjax: bool = True
    """Also time fedjax's own FedAvg through its jit backend and through this project's vmap backend, on a
    model of products alone and on the toy model: fedjax.json."""
    single_step: bool = True
    """Also time one step of base, batch 1 of 5.5 s, beside transformers on torch: step.json."""
    repeats: int = 7
    """Interleaved turns that are timed, after two rounds that are not."""
    rounds: int = 10
    """Most rounds of a turn; a turn lasts about a second where they are short."""
    make: bool = False
    """Make the peers' virtual environments first, under runs/peers: minutes, and some gigabytes."""


def check(options: BenchRoundsArguments) -> None:
    """Check what was asked for.

    Raises:
        UsageError: an unknown runner, a number that cannot be, or environments that cannot be made here.
    """
    for name in options.runners:
        arguments.check_choice("--runners", name, RUNNERS)
    arguments.check_at_least(1, options, "clients", "repeats", "rounds")
    if options.make and not environments.in_a_checkout():
        raise UsageError("--make needs a checkout of w2v-jax, which peers import: run it from one")


def absent(runners: dict[str, Runner]) -> list[str]:
    """Names of runners whose environment is not there."""
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
    # Runners start from what the user set: this process's own settings are not theirs.
    environment = os.environ | CHILDREN
    xla_flags.configure_xla()
    from experiments.bench.rounds import report as rounds_report

    runners = {name: RUNNERS[name] for name in options.runners}
    wanted = runners | (STEP_RUNNERS if options.single_step else {})
    if options.make:
        for name in sorted({runner.environment for runner in wanted.values() if runner.environment}):
            print(f"making the environment of {name}", flush=True)
            environments.make(name)
    missing = absent(wanted)
    if missing:
        print(f"not here: {', '.join(missing)} (--make makes their environments)", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    about = {
        "repeats": options.repeats,
        "rounds": options.rounds,
        "provenance": record_provenance("bench rounds", 0),
    }
    if options.single_step:
        found = {name: runner for name, runner in STEP_RUNNERS.items() if name not in missing}
        rows = measure(options, "step", 1, found, environment)
        result = {"rows": rows, "absent": [name for name in missing if name in STEP_RUNNERS], **about}
        write_json(options.out / "step.json", result)
        replace_file(options.out / "step.md", rounds_report.step_markdown(result))
    if options.fedjax:
        rows = []
        for workload in ("dense", "toy"):
            for clients in options.clients:
                rows += measure(options, workload, clients, FEDJAX_RUNNERS, environment)
        result = {"rows": rows, "absent": [], **about}
        write_json(options.out / "fedjax.json", result)
        replace_file(options.out / "fedjax.md", rounds_report.fedjax_markdown(result))
    present = {name: runner for name, runner in runners.items() if name not in missing}
    rows = []
    for workload in options.workloads:
        for clients in options.clients:
            rows += measure(options, workload, clients, present, environment)
            result = {"rows": rows, "absent": [name for name in missing if name in RUNNERS], **about}
            write_json(options.out / "rounds.json", result)
            replace_file(options.out / "rounds.md", rounds_report.markdown(result))
            rounds_report.draw(result, options.out / "rounds.png")
    print(f"written: {options.out}")


def measure(
    options: BenchRoundsArguments,
    workload: str,
    clients: int,
    runners: dict[str, Runner],
    environment: Mapping[str, str],
) -> list[dict[str, Any]]:
    """All contenders of one workload and K, interleaved: the fastest form of every runner."""
    folder = options.out / f"{workload}-{clients}"
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / "work.npz"
    rounds_work.write(work, workload, clients)
    machine = this_device()
    precision, flops = rounds_work.precision(workload), rounds_work.step_flops(workload, work)
    contenders = [
        (name, runner, form)
        for name, runner in runners.items()
        if workload not in runner.leaves_out
        for form in runner.forms_for(workload, machine.platform)
    ]
    started: list[Process] = []

    def begin(name: str, runner: Runner, form: str) -> Process:
        started.append(Process(name, runner, form, work, folder, precision, environment))
        return started[-1]

    try:
        for contender in contenders:
            process = begin(*contender)
            try:
                process.wait_until_ready()
                for _ in range(WARM_UP):
                    process.round()
            except RuntimeError as error:
                print(f"left out: {error}", flush=True)
                process.kill()
                started.remove(process)
                continue
            process.pause()
            print(
                f"{workload} K={clients} {process.name} ({process.form}): started in "
                f"{duration(process.startup_seconds)}, first rounds "
                + ", ".join(f"{seconds:.4g} s" for seconds in process.seconds),
                flush=True,
            )
        if not started:
            raise UserError(f"no runner could start: see the logs in {folder}")
        slow = [process for process in started if process.seconds[-1] > SLOWER * best(process.name, started)]
        left = [process for process in started if process not in slow]
        rounds = math.ceil(TURN_SECONDS / min(process.seconds[-1] for process in left))
        rounds = min(rounds, options.rounds)
        for repeat in range(options.repeats):
            # Each begins a turn once in a while: what comes after what is not always the same.
            first = repeat % len(left)
            for process in (*left[first:], *left[:first]):
                process.go_on()
                turn = [process.round() for _ in range(rounds)]
                # The first round of a turn finds cold caches.
                process.timed += turn[min(1, rounds - 1) :]
                process.pause()
            # What was measured is there even if the rest takes longer than somebody waits.
            write_json(
                folder / "timings.json",
                [{"runner": p.name, "form": p.form, "seconds": p.seconds} for p in started],
            )
        for process in started:
            process.go_on()
            process.finish()
        first = next((name for name in REFERENCES if name in {p.name for p in left}), left[0].name)
        references = {"whole": next(process for process in left if process.name == first)}
        if slow:
            # Those that stopped early are held against as few rounds.
            of = references["whole"]
            short = begin(f"{of.name}-early", of.runner, of.form)
            short.wait_until_ready()
            for _ in range(WARM_UP):
                short.round()
            short.finish()
            references["early"] = short
    finally:
        for process in started:
            process.kill()
        work.unlink(missing_ok=True)
    rows = [
        row(process, workload, clients, references["early" if process in slow else "whole"], flops, machine)
        for process in (*left, *slow)
    ]
    for name in {found["runner"] for found in rows}:
        tried = [found for found in rows if found["runner"] == name]
        # A form that ended elsewhere did other work: it does not count.
        if equal := [found for found in tried if found["parameters_agree"]]:
            min(equal, key=lambda found: found["seconds_per_round"])["counts"] = True
    for found in rows:
        print(
            f"{workload} K={clients} {found['runner']} ({found['form']}): "
            f"{found['seconds_per_round']:.4f} s a round, {duration(found['startup_seconds'])} to start",
            flush=True,
        )
    return rows


class Machine(NamedTuple):
    """What the runners share.

    Attributes:
        platform: cpu, gpu or tpu.
        peak_flops: operations a second by precision: a data sheet's dense rates of an accelerator, a large
            product's measured rate of a CPU.
    """

    platform: str
    peak_flops: dict[str, float]


def measured_rates() -> dict[str, float]:
    """Child: operations a second of a large product on this CPU, by precision."""
    from profiling import this_machine

    return {str(precision): rate for precision, rate in this_machine.this_machine().peak_flops.items()}


@functools.cache
def this_device() -> Machine:
    """The device that jax finds here."""
    import jax

    from profiling.devices import DEVICES, named_like

    device = jax.devices()[0]
    if device.platform == "cpu":
        # This process's own settings are for lanes: another one measures.
        own = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        return Machine("cpu", run_in_child(measured_rates, environment=own))
    known = named_like(device.device_kind)
    rates = DEVICES[known].peak_flops if known else {}
    return Machine(device.platform, {str(precision): rate for precision, rate in rates.items()})


def best(name: str, started: list[Process]) -> float:
    """Seconds of a runner's fastest form in the last warm-up round."""
    return min(process.seconds[-1] for process in started if process.name == name)


def row(
    process: Process, workload: str, clients: int, reference: Process, step_flops: int, machine: Machine
) -> dict[str, Any]:
    """What is kept of a contender.

    Args:
        reference: whose last parameters the others' must be equal to.
        step_flops: operations of the products of a client's step.
    """
    steps, audio = rounds_work.steps(workload), rounds_work.audio_seconds(workload)
    apart = distance(process.out, reference.out)
    # A form that was far slower than its runner's best has its last warm-up round alone.
    timed = process.timed or process.seconds[-1:]
    median = float(np.median(timed))
    peak = machine.peak_flops.get(process.precision)
    return {
        "workload": workload,
        "device": process.end["device"],
        "device_kind": process.end["device_kind"],
        "precision": process.precision,
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
        "client_steps_per_second": clients * steps / median,
        "audio_seconds_per_second": clients * steps * audio / median if audio else None,
        "model_flop_utilisation": clients * steps * step_flops / median / peak if peak else None,
        "padded_share": process.end.get("padded_share", 0.0),
        "peak_bytes": process.end["peak_bytes"],
        "host_peak_bytes": process.end["host_peak_bytes"],
        "layout": {name: process.end[name] for name in ("lanes", "chunk", "trials") if name in process.end},
        "reference": reference.name.removesuffix("-early"),
        "distance": apart,
        "parameters_agree": apart <= AGREE,
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
