"""Run a training step in a child process and measure its peak memory and its seconds. Imports no jax."""

import dataclasses
import subprocess
import time
from typing import Any

from experiments.process import xla_flags
from experiments.process.child_process import run_in_child, why_it_failed
from w2v_jax.errors import UserError

WARM_UP = 1  # steps that are not timed


def measure(settings: Any, *, repeats: int = 3) -> dict[str, Any]:
    """Measure a step in a child process.

    The child compiles the step or takes it from the cache, returns the memory that compiling freed, and notes
    its resident memory as idle. Only then it makes the arguments and takes steps. So the peak is the memory
    that running takes; `lifetime_peak_bytes` includes compiling and idle memory.

    Args:
        settings: StepSettings.
        repeats: steps that are timed, after a warm-up step.

    Returns:
        "peak_bytes" above idle, "idle_bytes", "lifetime_peak_bytes" (ru_maxrss), "step_seconds" of each step.

    Raises:
        UserError: the child ended early, usually because memory ran out.
    """
    try:
        return run_in_child(_measure, dataclasses.asdict(settings), repeats, keep_errors=True)
    except subprocess.CalledProcessError as failed:
        raise UserError(
            f"the measured step ({settings.describe()}) did not finish: {why_it_failed(failed)}"
        ) from None


def _measure(given: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Child: see `measure`."""
    xla_flags.configure_xla(1, model=given["model"], precision=given["precision"])
    import jax
    import jax.numpy as jnp

    from experiments.costs.step import training_step
    from profiling import process_memory

    settings = training_step.StepSettings(**given)
    step = training_step.build(settings)
    compiled = step.compile()

    def fill(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jnp.full(leaf.shape, 0.01 if leaf.dtype == jnp.float32 else 1, leaf.dtype)

    def arguments():
        state, batch, key, index = jax.tree.map(fill, step.arguments)
        samples = jnp.full(batch.num_samples.shape, settings.samples, jnp.int32)
        waveform = 0.1 * jnp.sin(jnp.cumsum(batch.waveform, 1))
        return state, batch._replace(num_samples=samples, waveform=waveform), key, index

    jax.block_until_ready(arguments())  # compiles the small programs that make them
    idle = process_memory.settle()
    state, batch, key, index = arguments()
    seconds = []
    for _ in range(WARM_UP + repeats):
        begun = time.perf_counter()
        state, loss = compiled(state, batch, key, index)
        jax.block_until_ready((state, loss))
        seconds.append(time.perf_counter() - begun)
    on_device = jax.devices()[0].memory_stats()  # None on a CPU
    peak = on_device["peak_bytes_in_use"] if on_device else process_memory.peak_resident_bytes() - idle
    return {
        "peak_bytes": peak,
        "idle_bytes": idle,
        "lifetime_peak_bytes": process_memory.lifetime_peak_bytes(),
        "step_seconds": seconds[WARM_UP:],
    }
