"""Describe the machine that this runs on as a device: memory from the system, measured rates."""

import platform
import time

import jax
import jax.numpy as jnp
import numpy as np

from profiling import runner
from profiling.device import Device

NAME = "this-machine"
_SIDE = 1536
_TRAFFIC_BYTES = 256 * 2**20


def this_machine(*, repeats: int = 7) -> Device:
    """Measure this machine's CPU; this takes seconds.

    The rates are the best of `repeats` runs: products of square matrices for arithmetic, an addition over a
    large array for bandwidth. They are reached rates; other devices have the rates of a data sheet.
    """
    board = runner.describe_board()
    cores = board["cores"]
    cpu = jax.devices("cpu")[0]
    matrix = jax.device_put(np.full((_SIDE, _SIDE), 0.5, np.float32), cpu)
    vector = jax.device_put(np.zeros(_TRAFFIC_BYTES // 4, np.float32), cpu)
    product = _best_seconds(jax.jit(lambda x: x @ x), matrix, repeats)
    added = _best_seconds(jax.jit(lambda x: x + jnp.float32(1)), vector, repeats)
    name = board["cpu"] or platform.processor() or platform.machine()
    return Device(
        title=f"this machine ({name}, {cores} cores)",
        kind="computer",
        processor="cpu",
        year=None,
        memory_bytes=board["memory_bytes"],
        bytes_per_second=2 * _TRAFFIC_BYTES / added,
        peak_flops={"fp32": 2 * _SIDE**3 / product},
        watts=None,
        source="memory by the system; rates measured here: "
        f"a product of {_SIDE} x {_SIDE} and a sum over {_TRAFFIC_BYTES // 2**20} MiB",
        plan="cpu",
    )


def _best_seconds(function, argument, repeats: int) -> float:
    """Return the least seconds of `repeats` calls after the first one."""
    jax.block_until_ready(function(argument))
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(function(argument))
        seconds.append(time.perf_counter() - begun)
    return min(seconds)
