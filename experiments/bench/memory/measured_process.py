r"""One process that idles, trains a few steps and ends: what `bench memory` measures from outside.

    python -m experiments.bench.memory.measured_process \
        '{"model": "base", "batch": 8, "seconds": 12, "method": "exact"}'

It says "idle" once everything is imported and the backend has started, and waits for a line on its standard
input before it makes parameters and compiles; in the end it prints what it knows as JSON. On a GPU what
counts is the GPU's memory, which only the process itself can tell: jax's allocator counts it.
"""

import json
import os
import sys
import time
from typing import Any

from experiments.process import xla_flags
from w2v_jax import memory_methods

AVAILABLE_SHARE = 0.9


def main() -> None:
    """Idle, wait, train, report."""
    given = json.loads(sys.argv[1])
    steps = given.pop("steps")
    if given["method"] != memory_methods.PLAIN:
        xla_flags.spare_memory()
    xla_flags.configure_xla(1, model=given["model"], precision=given["precision"])

    from experiments.costs.step import training_step

    idle = device_memory()
    print("idle", flush=True)
    sys.stdin.readline()
    told = train(training_step.StepSettings(**given), steps)
    if (now := device_memory()) is not None and idle is not None:
        told |= {
            "device_idle_bytes": idle["bytes_in_use"],
            "device_peak_bytes": now["peak_bytes_in_use"],
        }
    print(json.dumps(told), flush=True)


def device_memory() -> dict[str, int] | None:
    """An accelerator's memory as its allocator counts it; None on a CPU, where it is the process's own."""
    import jax

    return jax.devices()[0].memory_stats()


def train(settings: Any, steps: int) -> dict[str, Any]:
    """So many steps on noise, each waited for.

    Returns:
        What the compiler plans, and seconds and loss of every step; without these if there is no room.
    """
    import jax

    from experiments.costs.step import training_step
    from profiling.process_memory import available_bytes, give_back, peak_resident_bytes
    from profiling.xla import memory_plan

    began = time.perf_counter()
    step = training_step.build(settings)
    compiled = step.compile()
    compile_seconds = time.perf_counter() - began
    compiled_bytes, plan, on_device = peak_resident_bytes(), memory_plan(compiled), device_memory()
    told = {
        "compile_seconds": compile_seconds,
        "compiled_bytes": compiled_bytes,
        "plan_bytes": plan.total,
        "temporary_bytes": plan.temporaries,
        "parameter_bytes": training_step.tree_bytes(step.parameters),
        "optimizer_bytes": training_step.tree_bytes(step.optimizer_state),
        "available_bytes": available_bytes() if on_device is None else on_device["bytes_limit"],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "tunables": os.environ.get("GLIBC_TUNABLES", ""),
    }
    if plan.total > AVAILABLE_SHARE * told["available_bytes"]:
        return told  # the system would end it, or another process
    give_back()
    state, batch = jax.jit(step.begin)(jax.random.key(0)), training_step.noise_batch(settings)
    key = jax.random.key(1)
    seconds, losses = [], []
    for index in range(steps):
        began = time.perf_counter()
        state, loss = compiled(state, batch, key, jax.numpy.int32(index))
        losses.append(float(loss))
        seconds.append(time.perf_counter() - began)
    return told | {"step_seconds": seconds, "losses": losses}


if __name__ == "__main__":
    main()
