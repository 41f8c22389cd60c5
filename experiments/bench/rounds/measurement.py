"""Time the runners of one workload in turns, and compare their last parameters."""

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.bench.rounds import work as rounds_work
from experiments.bench.rounds.runners import Runner, RunnerProcess
from experiments.process.child_process import run_in_child
from experiments.process.files import write_json
from experiments.report.units import duration
from w2v_jax.errors import UserError

REFERENCES = ("loop", "torch_fp32", "fedjax_jit", "ours_fp32")  # the first one that takes part
AGREE = 1e-4  # largest distance, as a share of the parameters' norm
WARM_UP = 2  # rounds that are not timed
TURN_SECONDS = 1.0  # a turn is one round, or more where they are shorter than this
SLOWER = 1.3  # forms that take longer than this times their runner's best form are not timed further


def measure(
    folder: Path,
    workload: str,
    clients: int,
    runners: dict[str, Runner],
    repeats: int,
    most_rounds: int,
    environment: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Time all forms of all runners on one workload with K clients.

    Args:
        folder: receives logs, last parameters and timings.json.
        workload: name of the workload.
        clients: K.
        runners: runners by name.
        repeats: timed turns.
        most_rounds: most rounds of a turn.
        environment: environment variables of the runners.

    Returns:
        A row for each form of each runner. `counts` marks the fastest form of each runner.

    Raises:
        UserError: no runner could start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / "work.npz"
    rounds_work.write(work, workload, clients)
    machine, flops = this_device(), rounds_work.step_flops(workload, work)
    contenders = [
        (name, runner, form)
        for name, runner in runners.items()
        if workload not in runner.leaves_out
        for form in runner.forms_for(workload, machine.platform)
    ]
    precision = rounds_work.precision(workload)
    start = functools.partial(
        RunnerProcess, work=work, folder=folder, precision=precision, environment=environment
    )
    started: list[RunnerProcess] = []
    try:
        references = race(started, start, contenders, folder, repeats, most_rounds)
    finally:
        for process in started:
            process.kill()
        work.unlink(missing_ok=True)
    rows = [
        row(process, workload, clients, reference, flops, machine)
        for process, reference in references.items()
    ]
    mark_fastest(rows)
    for found in rows:
        print(
            f"{workload} K={clients} {found['runner']} ({found['form']}): "
            f"{found['seconds_per_round']:.4f} s a round, {duration(found['startup_seconds'])} to start",
            flush=True,
        )
    return rows


def race(
    started: list[RunnerProcess],
    start: Callable[[str, Runner, str], RunnerProcess],
    contenders: Sequence[tuple[str, Runner, str]],
    folder: Path,
    repeats: int,
    most_rounds: int,
) -> dict[RunnerProcess, RunnerProcess]:
    """Start all contenders, warm them up, time them in turns and let them end.

    Args:
        started: receives every process that runs, for the caller to kill.
        start: (name, runner, form) -> its process.
        contenders: forms of runners to start.
        folder, repeats, most_rounds: see `measure`.

    Returns:
        Each process with the process whose last parameters it must equal, those that were timed first.

    Raises:
        UserError: no runner could start.
    """
    for contender in contenders:
        started.append(process := start(*contender))
        if not warm_up(process, folder.name):
            started.remove(process)
    if not started:
        raise UserError(f"no runner could start: see the logs in {folder}")
    slow = [process for process in started if process.seconds[-1] > SLOWER * best(process.name, started)]
    left = [process for process in started if process not in slow]
    take_turns(left, repeats, most_rounds, lambda: write_timings(folder / "timings.json", started))
    for process in started:
        process.go_on()
        process.finish()
    reference = early = reference_of(left)
    if slow:
        # Slow forms stopped after the warm-up, so they are compared with as many rounds of the reference.
        started.append(early := start(f"{reference.name}-early", reference.runner, reference.form))
        early.warm_up(WARM_UP)
        early.finish()
    return dict.fromkeys(left, reference) | dict.fromkeys(slow, early)


def warm_up(process: RunnerProcess, title: str) -> bool:
    """Wait for a runner, run its first rounds and pause it; return False and end it where it fails."""
    try:
        process.warm_up(WARM_UP)
    except RuntimeError as error:
        print(f"left out: {error}", flush=True)
        process.kill()
        return False
    process.pause()
    first = ", ".join(f"{seconds:.4g} s" for seconds in process.seconds)
    print(
        f"{title} {process.name} ({process.form}): started in {duration(process.startup_seconds)}, "
        f"first rounds {first}",
        flush=True,
    )
    return True


def take_turns(
    processes: Sequence[RunnerProcess], repeats: int, most_rounds: int, save: Callable[[], None]
) -> None:
    """Let paused runners take turns of about a second each; call `save` after each turn."""
    rounds = math.ceil(TURN_SECONDS / min(process.seconds[-1] for process in processes))
    rounds = min(rounds, most_rounds)
    for repeat in range(repeats):
        # Each runner starts a repeat once in a while, so that none always follows the same one.
        first = repeat % len(processes)
        for process in (*processes[first:], *processes[:first]):
            process.go_on()
            turn = [process.round() for _ in range(rounds)]
            # The first round of a turn finds cold caches.
            process.timed += turn[min(1, rounds - 1) :]
            process.pause()
            save()


def write_timings(path: Path, started: Sequence[RunnerProcess]) -> None:
    """Write all rounds so far, so that an interrupted run keeps what it measured."""
    write_json(path, [{"runner": p.name, "form": p.form, "seconds": p.seconds} for p in started])


def reference_of(processes: Sequence[RunnerProcess]) -> RunnerProcess:
    """Choose the process whose last parameters the others' must equal."""
    names = {process.name for process in processes}
    name = next((name for name in REFERENCES if name in names), processes[0].name)
    return next(process for process in processes if process.name == name)


def mark_fastest(rows: list[dict[str, Any]]) -> None:
    """Mark the fastest form of each runner. A form that ends with other parameters does not count."""
    for name in {found["runner"] for found in rows}:
        if equal := [found for found in rows if found["runner"] == name and found["parameters_agree"]]:
            min(equal, key=lambda found: found["seconds_per_round"])["counts"] = True


class Machine(NamedTuple):
    """The device that all runners share.

    Attributes:
        platform: cpu, gpu or tpu.
        peak_flops: operations a second by precision: the dense rates of an accelerator's data sheet, or the
            measured rate of a large product on a CPU.
    """

    platform: str
    peak_flops: dict[str, float]


def measured_rates() -> dict[str, float]:
    """Child: measure the operations a second of a large product on this CPU, by precision."""
    from profiling import this_machine

    return {str(precision): rate for precision, rate in this_machine.this_machine().peak_flops.items()}


@functools.cache
def this_device() -> Machine:
    """Return the device that jax finds here."""
    import jax

    from profiling.devices import DEVICES, named_like

    device = jax.devices()[0]
    if device.platform == "cpu":
        # This process's XLA flags are for lanes, so a child without them measures.
        own = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        return Machine("cpu", run_in_child(measured_rates, environment=own))
    known = named_like(device.device_kind)
    rates = DEVICES[known].peak_flops if known else {}
    return Machine(device.platform, {str(precision): rate for precision, rate in rates.items()})


def best(name: str, started: Sequence[RunnerProcess]) -> float:
    """Return the seconds of a runner's fastest form in the last warm-up round."""
    return min(process.seconds[-1] for process in started if process.name == name)


def row(
    process: RunnerProcess,
    workload: str,
    clients: int,
    reference: RunnerProcess,
    step_flops: int,
    machine: Machine,
) -> dict[str, Any]:
    """Summarise a runner's form as a row of rounds.json.

    Args:
        process: the runner.
        workload: name of the workload.
        clients: K.
        reference: the runner whose last parameters the others' must equal.
        step_flops: operations of the products of a client's step.
        machine: the device.
    """
    steps, audio = rounds_work.steps(workload), rounds_work.audio_seconds(workload)
    apart = distance(process.out, reference.out)
    # A form that was far slower than its runner's best has only its last warm-up round.
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
    """Compute the distance of two runners' last parameters over the norm of the second's."""
    mine, theirs = np.load(one), np.load(other)
    if set(mine.files) != set(theirs.files):
        return float("inf")
    squares = sum(
        float(np.square(mine[name] - theirs[name], dtype=np.float64).sum()) for name in theirs.files
    )
    return (squares / sum(float(np.square(theirs[n], dtype=np.float64).sum()) for n in theirs.files)) ** 0.5
