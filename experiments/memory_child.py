"""One process that idles, trains a few steps and ends: what `bench memory` measures from outside.

    python -m experiments.memory_child '{"model": "base", "batch": 8, "seconds": 12, "method": "exact"}'

It says "idle" once everything is imported and the backend has started, and waits for a line on its standard
input before it makes parameters and compiles; in the end it prints what it knows as JSON.
"""

import json
import sys
import time
from typing import Any

from experiments import runtime


def main() -> None:
    """Idle, wait, train, report."""
    given = json.loads(sys.argv[1])
    steps = given.pop("steps")
    runtime.configure_xla(1, model=given["model"], precision=given["precision"])
    import jax
    import jax.numpy as jnp

    from experiments import training_step

    jax.block_until_ready(jnp.zeros(1))
    print("idle", flush=True)
    sys.stdin.readline()
    print(json.dumps(train(training_step.StepSettings(**given), steps)), flush=True)


def train(settings: Any, steps: int) -> dict[str, Any]:
    """So many steps on noise, each waited for.

    Returns:
        Seconds and loss of every step, seconds until the program was there, and the compiler's plan.
    """
    import jax

    from experiments import training_step
    from profiling.resident import peak_resident_bytes
    from profiling.xla import memory_plan

    began = time.perf_counter()
    step = training_step.build(settings)
    compiled = step.compile()
    compile_seconds = time.perf_counter() - began
    compiled_bytes = peak_resident_bytes()
    state, batch = jax.jit(step.begin)(jax.random.key(0)), training_step.noise_batch(settings)
    key = jax.random.key(1)
    seconds, losses = [], []
    for index in range(steps):
        began = time.perf_counter()
        state, loss = compiled(state, batch, key, jax.numpy.int32(index))
        losses.append(float(loss))
        seconds.append(time.perf_counter() - began)
    plan = memory_plan(compiled)
    return {
        "step_seconds": seconds,
        "losses": losses,
        "compile_seconds": compile_seconds,
        "compiled_bytes": compiled_bytes,
        "plan_bytes": plan.total,
        "temporary_bytes": plan.temporaries,
        "parameter_bytes": training_step.tree_bytes(step.parameters),
        "optimizer_bytes": training_step.tree_bytes(step.optimizer_state),
    }


if __name__ == "__main__":
    main()
