"""The child process that `bench memory` measures from outside: it idles, trains a few steps and ends.

The child prints "idle" after it has imported everything and started its backend. It waits for a line on
standard input before it makes parameters and compiles. On an accelerator, the accelerator's memory counts;
only the process itself can read it from jax's allocator.
"""

import os
import sys
import time
from typing import Any

from experiments.process import xla_flags
from w2v_jax import memory_methods

AVAILABLE_SHARE = 0.9


def idle_and_train(settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """Child: idle, wait for a line, train, and return what the process knows about itself.

    Args:
        settings: fields of StepSettings.
        steps: steps to train.
    """
    if settings["method"] != memory_methods.PLAIN:
        xla_flags.spare_memory()
    xla_flags.configure_xla(1, model=settings["model"], precision=settings["precision"])

    from experiments.costs.step import training_step

    idle = device_memory()
    print("idle", flush=True)
    sys.stdin.readline()
    told = train(training_step.StepSettings(**settings), steps)
    if (now := device_memory()) is not None and idle is not None:
        told |= {
            "device_idle_bytes": idle["bytes_in_use"],
            "device_peak_bytes": now["peak_bytes_in_use"],
        }
    return told


def device_memory() -> dict[str, int] | None:
    """Return an accelerator's memory by its allocator; None on a CPU, where the process's memory counts."""
    import jax

    return jax.devices()[0].memory_stats()


def train(settings: Any, steps: int) -> dict[str, Any]:
    """Compile a step and train on noise, waiting for each step.

    Args:
        settings: StepSettings.
        steps: steps to train.

    Returns:
        The compiler's plan, and seconds and loss of every step. Seconds and losses are missing where the plan
        is larger than the available memory.
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
        return told  # the system would kill this process or another one
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
