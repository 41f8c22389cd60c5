"""Run a training step in a process of its own: the most memory that it held, and how long it took."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from typing import Any

from experiments.costs.step.training_step import StepSettings
from experiments.process.child_process import own_python
from w2v_jax.errors import UserError

WARM_UP = 1


def measure(settings: StepSettings, *, repeats: int = 3) -> dict[str, Any]:
    """Peak resident memory and time of a step, in a child process.

    The child compiles (or takes programs from the cache), gives back what that freed, notes its resident
    memory as idle, and only then makes its arguments and steps. So the peak is what the program needs to
    run; what compiling took is told by `lifetime_peak_bytes`, which includes idle memory.

    Returns:
        {"peak_bytes": most held above idle, "idle_bytes", "lifetime_peak_bytes": ru_maxrss, "step_seconds":
        [...] after a warm-up step}.

    Raises:
        UserError: the child ended early, for want of memory as a rule.
    """
    order = json.dumps({"settings": dataclasses.asdict(settings), "repeats": repeats})
    child = subprocess.run(
        [*own_python(), "-m", "experiments.costs.step.measurement", order],
        capture_output=True,
        text=True,
        env=os.environ.copy(),
        check=False,
    )
    if child.returncode:
        words = child.stderr.strip().splitlines()
        reason = words[-1] if words else f"exit status {child.returncode}"
        if child.returncode < 0:  # the system kills what takes more memory than there is
            reason = (
                f"it was killed by {signal.Signals(-child.returncode).name}, for want of memory as a rule"
            )
        raise UserError(f"the measured step ({settings.describe()}) did not finish: {reason}")
    return json.loads(child.stdout.splitlines()[-1])


def _run(settings: StepSettings, repeats: int) -> dict[str, Any]:
    import time

    import jax
    import jax.numpy as jnp

    from experiments.costs.step import training_step
    from profiling import process_memory

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

    jax.block_until_ready(arguments())  # the small programs that make them are compiled now
    idle = process_memory.settle()
    state, batch, key, index = arguments()
    seconds = []
    for _ in range(WARM_UP + repeats):
        begun = time.perf_counter()
        state, loss = compiled(state, batch, key, index)
        jax.block_until_ready((state, loss))
        seconds.append(time.perf_counter() - begun)
    on_device = jax.devices()[0].memory_stats()  # None on CPU
    return {
        "peak_bytes": on_device["peak_bytes_in_use"]
        if on_device
        else process_memory.peak_resident_bytes() - idle,
        "idle_bytes": idle,
        "lifetime_peak_bytes": process_memory.lifetime_peak_bytes(),
        "step_seconds": seconds[WARM_UP:],
    }


if __name__ == "__main__":
    from experiments.process import xla_flags

    order = json.loads(sys.argv[1])
    settings = StepSettings(**order["settings"])
    xla_flags.configure_xla(1, model=settings.model, precision=settings.precision)
    print(json.dumps(_run(settings, order["repeats"])))
