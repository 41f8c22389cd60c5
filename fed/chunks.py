"""Choose how many clients to vmap on an accelerator: estimate the memory, then measure the time.

On CPU, lanes of one client each are fastest (docs/decisions/0003), and nothing is measured.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from fed.algorithm import Server
from fed.client import Block
from fed.cohort import Shared
from fed.engine.blocks import Engine
from fed.keys import round_key
from fed.placement import fetch, model_shardings, put, replicate
from fed.server import ServerState

REPEATS = 3
GAIN = 0.02  # a larger chunk takes more memory: it must be faster by this share
MEMORY_SHARE = 0.85  # share of the device's memory that the program and its arguments may take


class Trial(NamedTuple):
    """A chunk that was tried.

    Attributes:
        chunk: clients side by side on a lane.
        planned_bytes: memory of a group's program on one device by XLA's plan; 0 if XLA made no plan.
        cohort_seconds: time of a lane's share of a cohort, computed from a group's block of steps; None if
            the chunk does not fit.
    """

    chunk: int
    planned_bytes: int
    cohort_seconds: float | None


def candidates(clients_per_lane: int) -> list[int]:
    """List the chunks worth trying, largest first: all at once, in two groups, in four, ..., one by one.

    Groups are as equal in size as possible, so that few places of the last one stay empty.
    """
    found, groups = [], 1
    while groups < clients_per_lane:
        found.append(math.ceil(clients_per_lane / groups))
        groups *= 2
    return [*dict.fromkeys(chunk for chunk in found if chunk > 1), 1]


def measure(
    build: Callable[[int], Engine],
    server: ServerState,
    clients_per_lane: int,
    steps: int,
    memory_bytes: float | None,
) -> list[Trial]:
    """Try one client at a time, the largest chunk that is likely to fit, and smaller ones while they win.

    Every trial compiles a program for a group and runs it on batches of zeros. All of several processes
    must call this, and get the same trials.

    Args:
        build: chunk -> the engine that trains this many clients side by side.
        server: a state; it is not consumed.
        clients_per_lane: a lane's share of the clients of a cohort.
        steps: local steps of a client's round; an engine's block may hold a part of them.
        memory_bytes: the memory of a device in bytes, or None if it is not known.

    Returns:
        Trials in the order in which they were made; the first is that of one client at a time.
    """
    limit = _agreed(math.inf if memory_bytes is None else MEMORY_SHARE * memory_bytes, min)
    trials = [_try(build(1), server, clients_per_lane, steps, math.inf)]
    estimate, alone = trials[0].planned_bytes, trials[0].cohort_seconds
    assert alone is not None
    best = alone
    for chunk in candidates(clients_per_lane)[:-1]:
        if chunk * estimate > limit and chunk > 2:
            continue
        trials.append(_try(build(chunk), server, clients_per_lane, steps, limit))
        seconds, won = trials[-1].cohort_seconds, best < alone
        if seconds is not None and seconds < best * (1.0 - GAIN):
            best = seconds
        elif won:
            break  # smaller chunks were faster than larger ones, until now
    return trials


def fastest(trials: list[Trial]) -> int:
    """Choose the smallest chunk whose time is within `GAIN` of the fastest."""
    ran = [(trial.cohort_seconds, trial.chunk) for trial in trials if trial.cohort_seconds is not None]
    best = min(ran)[0]
    return min(chunk for seconds, chunk in ran if seconds <= best * (1.0 + GAIN))


def device_memory_bytes() -> float | None:
    """Read how many bytes the first device's allocator may hand out; None if it does not tell."""
    held = jax.local_devices()[0].memory_stats() or {}
    return held.get("bytes_limit")


def _try(engine: Engine, server: ServerState, clients_per_lane: int, steps: int, limit: float) -> Trial:
    """Compile a group's program, and time it if its plan fits."""
    arguments = _arguments(engine, server)
    chunk, several = engine.layout.chunk, jax.process_count() > 1
    planned, seconds = 0, math.inf
    try:
        compiled = engine.programs.whole.lower(*arguments).compile()
        plan = compiled.memory_analysis()
        planned = int(
            plan.argument_size_in_bytes
            + plan.output_size_in_bytes
            + plan.temp_size_in_bytes
            - plan.alias_size_in_bytes
        )
        if _agreed(float(planned), max) <= limit:
            seconds = _block_seconds(compiled, *arguments)
    except jax.errors.JaxRuntimeError as error:
        # With several processes, the others would wait for this one.
        if several or chunk == 1 or "RESOURCE_EXHAUSTED" not in str(error):
            raise
    blocks = math.ceil(clients_per_lane / chunk) * steps / engine.block_steps
    seconds = _agreed(seconds, max) * blocks
    return Trial(chunk, planned, seconds if math.isfinite(seconds) else None)


def _block_seconds(compiled: Any, accumulator: Any, *others: Any) -> float:
    """Median time of a group's program in seconds, after one run to warm up."""
    times = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        accumulator, *rest = jax.block_until_ready(compiled(accumulator, *others))
        times.append(time.perf_counter() - started)
        del rest
    return float(np.median(times[1:]))


def _arguments(engine: Engine, server: ServerState) -> tuple[Any, ...]:
    """Arguments of a group's program, with batches of zeros, on which its time does not depend."""
    programs = engine.programs
    server = replicate(server, model_shardings(programs.mesh, server))
    sent = Server(server.parameters, server.optimizer_state)
    kept = jax.jit(programs.kept)(server.parameters)
    clients = programs.rows.stop - programs.rows.start
    shape = (clients, engine.block_steps)
    steps = np.broadcast_to(np.arange(engine.block_steps, dtype=np.int32), shape)
    batches = jax.tree.map(lambda leaf: np.zeros((*shape, *leaf.shape), leaf.dtype), engine.batch)
    block = Block._make((batches, np.ones(shape, bool), np.ones(shape, bool), steps))
    by_client = programs.by_client
    stacked = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (clients, *leaf.shape)), fetch(kept))
    return (
        programs.empty(sent, server.objective_state),
        sent,
        server.objective_state,
        put(stacked, by_client),
        put(block, by_client),
        put(np.arange(clients, dtype=np.uint32), by_client),
        replicate(round_key(0, 0), programs.replicated),
        replicate(np.int32(0), programs.replicated),
        Shared(sent, engine.data),
        put(np.ones(clients, np.float32), by_client),
    )


def _agreed(value: float, choose: Callable[[list[float]], float]) -> float:
    """The value that all processes use: the least or the greatest of theirs."""
    if jax.process_count() == 1:
        return value
    return choose([float(held) for held in multihost_utils.process_allgather(np.float64(value)).ravel()])
