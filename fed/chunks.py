"""How many clients to vmap on an accelerator: an estimate of memory first, then measurements.

On CPU lanes of one client each win (docs/decisions/0003) and nothing is measured.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from fed.client import Block
from fed.cohort import Shared
from fed.keys import round_key
from fed.placement import model_shardings, put, replicate
from fed.round import Engine
from fed.server import ServerState

REPEATS = 3
GAIN = 0.02  # a larger chunk has to be faster by this, since it takes more memory
MEMORY_SHARE = 0.85  # of what the device has, for the program and all that stands beside it


class Trial(NamedTuple):
    """A chunk that was tried.

    Attributes:
        chunk: clients side by side on a lane.
        planned_bytes: XLA's plan of a group's program, on one device.
        cohort_seconds: a lane's share of a cohort, from the time of one group; None where the plan did not
            fit and nothing ran.
    """

    chunk: int
    planned_bytes: int
    cohort_seconds: float | None


def candidates(clients_per_lane: int) -> list[int]:
    """Chunks worth trying, largest first: all at once, in two groups, in four, ..., one by one.

    Groups are of equal size as far as they can be, so that few places of the last one stay empty.
    """
    found, groups = [], 1
    while groups < clients_per_lane:
        found.append(math.ceil(clients_per_lane / groups))
        groups *= 2
    return [*dict.fromkeys(chunk for chunk in found if chunk > 1), 1]


def measure(
    build: Callable[[int], Engine], server: ServerState, clients_per_lane: int, memory_bytes: float | None
) -> list[Trial]:
    """Try one by one, then the largest chunk that fits by an estimate, and smaller ones until one wins.

    Every trial costs a compilation, of which the chosen engine keeps its own.

    Args:
        build: chunk -> the engine that would train so many clients side by side.
        server: a state; it is not consumed.
        clients_per_lane: of a cohort.
        memory_bytes: of a device, or None where nobody knows.

    Returns:
        Trials in the order in which they were made; the first is of one client at a time.
    """
    limit = math.inf if memory_bytes is None else MEMORY_SHARE * memory_bytes
    trials = [_try(build(1), server, clients_per_lane, math.inf)]
    estimate, alone = trials[0].planned_bytes, trials[0].cohort_seconds
    assert alone is not None
    for chunk in candidates(clients_per_lane)[:-1]:
        if chunk * estimate > limit and chunk > 2:
            continue
        trials.append(_try(build(chunk), server, clients_per_lane, limit))
        seconds = trials[-1].cohort_seconds
        if seconds is not None and seconds < alone * (1.0 - GAIN):
            break
    return trials


def fastest(trials: list[Trial]) -> int:
    """The chunk to use: the smallest among those that are as fast as the fastest but for `GAIN`."""
    ran = [(trial.cohort_seconds, trial.chunk) for trial in trials if trial.cohort_seconds is not None]
    best = min(ran)[0]
    return min(chunk for seconds, chunk in ran if seconds <= best * (1.0 + GAIN))


def device_memory_bytes() -> float | None:
    """What the first device's allocator may hand out, if it tells."""
    held = jax.local_devices()[0].memory_stats() or {}
    return held.get("bytes_limit")


def _try(engine: Engine, server: ServerState, clients_per_lane: int, limit: float) -> Trial:
    """Compile a group's program, and time it if its plan fits."""
    arguments = _arguments(engine, server)
    compiled = engine.programs.whole.lower(*arguments).compile()
    plan = compiled.memory_analysis()
    planned = (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        + plan.temp_size_in_bytes
        - plan.alias_size_in_bytes
    )
    chunk, seconds = engine.layout.chunk, None
    if planned <= limit:
        accumulator, *others = arguments
        times = []
        for _ in range(1 + REPEATS):
            started = time.perf_counter()
            accumulator, *rest = jax.block_until_ready(compiled(accumulator, *others))
            times.append(time.perf_counter() - started)
            del rest
        seconds = _agreed(float(np.median(times[1:]))) * math.ceil(clients_per_lane / chunk)
    return Trial(chunk, int(planned), seconds)


def _arguments(engine: Engine, server: ServerState) -> tuple[Any, ...]:
    """What a group's program takes, with batches of zeros; how long it runs does not depend on them."""
    programs = engine.programs
    server = replicate(server, model_shardings(programs.mesh, server))
    model = (server.parameters, server.objective_state)
    clients = programs.rows.stop - programs.rows.start
    shape = (clients, engine.block_steps)
    steps = np.broadcast_to(np.arange(engine.block_steps, dtype=np.int32), shape)
    batches = jax.tree.map(lambda leaf: np.zeros((*shape, *leaf.shape), leaf.dtype), engine.batch)
    block = Block._make((batches, np.ones(shape, bool), np.ones(shape, bool), steps))
    by_client = programs.by_client
    return (
        programs.empty(*model),
        *model,
        put(block, by_client),
        put(np.arange(clients, dtype=np.uint32), by_client),
        replicate(round_key(0, 0), programs.replicated),
        replicate(np.int32(0), programs.replicated),
        Shared(server.parameters, engine.data),
        put(np.ones(clients, np.float32), by_client),
    )


def _agreed(seconds: float) -> float:
    """The first process's time, so that all of several processes choose alike."""
    if jax.process_count() == 1:
        return seconds
    return float(multihost_utils.broadcast_one_to_all(np.float32(seconds)))
