"""`w2v-jax bench clients`: seconds per round for K clients by loop, vmap, lanes and the automatic choice."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.options import arguments
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance

STEPS, BATCH_SIZE, SECONDS, LEARNING_RATE = 4, 4, 1.0, 0.05
MOST_DIFFERENCE = 1e-4  # as a share of the parameters' norm
WORKLOAD = (
    f"tiny model in fp32, {STEPS} local SGD steps a client, batches of {BATCH_SIZE} crops of {SECONDS} s of "
    "noise, FedAvg, batches resident in host memory"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchClientsArguments:
    """Compare ways to run clients side by side. All of them must end with the same parameters.

    example: w2v-jax bench clients --out bench/clients --clients 1 4 8 16
    """

    out: Path
    """Folder for clients.json, clients.md and clients.png."""
    clients: tuple[int, ...] = (1, 4, 8, 16)
    """Numbers of clients that train side by side."""
    repeats: int = 9
    """Interleaved repeats of each method at each number of clients; the report shows their median."""
    lanes: int | None = None
    """Devices that train side by side, for the method `auto`. Default: all devices (on a CPU, one for each
    core)."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """One method at one K.

    Attributes:
        method: name of the method.
        chunk: clients side by side in a lane.
        lanes: devices.
        prepare: makes the first state; it is not timed, because a round consumes its state.
        run: runs a round from that state and returns the new parameters.
    """

    method: str
    chunk: int
    lanes: int
    prepare: Callable[[], Any]
    run: Callable[[Any], Any]


def setting(form: str) -> tuple[Any, Any]:
    """Return the objective and the local training, with convolutions in one form."""
    import jax.numpy as jnp
    import optax

    from fed.client import LocalTraining
    from w2v_jax.config import TINY
    from w2v_jax.objective.pretraining import pretraining_objective

    objective = pretraining_objective(TINY.replace(convolution_form=form))
    return objective, LocalTraining(objective, optax.identity(), lambda step: jnp.float32(LEARNING_RATE))


def loop(source: Any) -> Contender:
    """Run one jitted client step after another, one client at a time."""
    import jax
    import jax.numpy as jnp

    from fed import keys

    names = source.client_ids()
    objective, _ = setting("lax")
    initial, state = objective.init(jax.random.key(0))

    @jax.jit
    def step(parameters, batch, key):
        gradients, _, _ = objective.value_and_grad(parameters, state, batch, key, jnp.int32(0))
        return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, parameters, gradients)

    add = jax.jit(lambda total, p: jax.tree.map(lambda a, b: a + b / len(names), total, p))

    def run(initial):
        key = keys.round_key(0, 0)
        total = jax.tree.map(jnp.zeros_like, initial)
        for name in names:
            parameters, number = initial, np.uint32(keys.client_number(name))
            for index, batch in enumerate(source.client_batches(name, 0)):
                parameters = step(parameters, batch, keys.step_key(key, number, np.int32(index)))
            total = add(total, parameters)
        return jax.block_until_ready(total)

    return Contender("loop", 1, 1, lambda: initial, run)


def vectorised(source: Any, method: str, form: str, layout: Any) -> Contender:
    """Run the engine with a given layout."""
    import jax
    import jax.numpy as jnp

    from fed import cohort, server, simulation
    from fed.algorithms.averaging import averaging
    from fed.round import run_round

    names = source.client_ids()
    objective, training = setting(form)
    initial = server.init(objective, averaging(), jax.random.key(0))
    first = next(source.client_batches(names[0], 0))
    settings = cohort.RoundSettings(training, averaging(), layout)
    engine = simulation.build_engine(settings, initial, first, STEPS)

    def prepare():
        return jax.block_until_ready(jax.tree.map(jnp.copy, initial))

    def run(state):
        outcome = run_round(engine, state, source, names, seed=0, round_index=0, first_step=0)
        return jax.block_until_ready(outcome.server.parameters)

    return Contender(method, layout.chunk, layout.lanes, prepare, run)


def contenders(clients: int, lanes: int | None) -> list[Contender]:
    """Build all methods for K clients, the plain loop first."""
    from experiments.bench.workload import NoiseClients
    from fed import cohort
    from w2v_jax.model.convolutions import form_for_clients

    source = NoiseClients(clients, steps=STEPS, batch=BATCH_SIZE, seconds=SECONDS, resident=True)
    chosen = cohort.choose_layout(clients, lanes=lanes)
    return [
        loop(source),
        vectorised(source, "vmap_lax", "lax", cohort.Layout(1, clients)),
        vectorised(source, "vmap", "product", cohort.Layout(1, clients)),
        vectorised(source, "auto", form_for_clients(chosen.chunk), chosen),
    ]


def check_equal(entries: Sequence[Contender]) -> None:
    """Run each method once, which also compiles it, and compare the parameters with those of the first one.

    Raises:
        RuntimeError: a method ends with other parameters.
    """
    import jax
    import optax

    reference = jax.device_get(entries[0].run(entries[0].prepare()))
    for entry in entries[1:]:
        found = jax.device_get(entry.run(entry.prepare()))
        difference = optax.tree.norm(jax.tree.map(np.subtract, found, reference))
        share = float(difference / optax.tree.norm(reference))
        if not share < MOST_DIFFERENCE:
            raise RuntimeError(f"{entry.method} differs from loop by {share:.1e} of the parameters' norm")


def measure(entries: Sequence[Contender], repeats: int) -> dict[str, list[float]]:
    """Time the methods in turns; return the seconds of each round by method."""
    seconds: dict[str, list[float]] = {entry.method: [] for entry in entries}
    for _, entry in itertools.product(range(repeats), entries):
        state = entry.prepare()
        started = time.perf_counter()
        entry.run(state)
        seconds[entry.method].append(time.perf_counter() - started)
    return seconds


def row(clients: int, entry: Contender, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Summarise one method at one K as a row of clients.json."""
    times = np.array(seconds[entry.method])
    ratio = times / np.array(seconds["auto"])
    return {
        "clients": clients,
        "method": entry.method,
        "chunk": entry.chunk,
        "lanes": entry.lanes,
        "seconds_per_round": float(np.median(times)),
        "seconds_p10": float(np.quantile(times, 0.1)),
        "seconds_p90": float(np.quantile(times, 0.9)),
        "ratio_to_auto": float(np.median(ratio)),
        "ratio_to_auto_p10": float(np.quantile(ratio, 0.1)),
        "ratio_to_auto_p90": float(np.quantile(ratio, 0.9)),
        "samples": times.tolist(),
    }


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(BenchClientsArguments, argv, "w2v-jax bench clients")
    arguments.check_at_least(1, options, "clients", "repeats", "lanes")
    options.out.mkdir(parents=True, exist_ok=True)  # before anything is measured
    xla_flags.configure_xla(options.lanes)
    from experiments.bench import clients_report
    from experiments.report.writer import write_report

    rows = []
    for clients in options.clients:
        entries = contenders(clients, options.lanes)
        check_equal(entries)
        seconds = measure(entries, options.repeats)
        for entry in entries:
            rows.append(row(clients, entry, seconds))
            print(
                f"K={clients:<3} {entry.method:<9} {rows[-1]['seconds_per_round']:.3f} s a round  "
                f"({rows[-1]['ratio_to_auto']:.2f} x auto)",
                flush=True,
            )
    result = {"workload": WORKLOAD, "rows": rows, "provenance": record_provenance("bench clients", 0)}
    write_report(options.out, "clients", result, clients_report.markdown, clients_report.draw)
    print(f"written: {options.out / 'clients.json'}, clients.md, clients.png")
