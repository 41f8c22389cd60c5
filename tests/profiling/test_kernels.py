"""Device time by name scope, from jax's profiler."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from profiling import kernels
from profiling.xla_messages import parse


def lowered_step():
    """A state and an input -> (state, loss), with two scopes, one of them in a loop."""

    def step(state, x):
        with jax.named_scope("products"):
            y = jnp.tanh(state @ x)

        def body(carry, _):
            with jax.named_scope("turns"):
                return jnp.sin(carry @ carry) * jnp.float32(0.1), None

        with jax.named_scope("loop"):
            y, _ = jax.lax.scan(body, y, None, length=3)
        return state, y.sum()

    arguments = (jnp.ones((300, 300)), jnp.ones((300, 300)))
    return jax.jit(step).lower(*arguments), arguments


def test_time_is_put_down_to_scopes():
    lowered, arguments = lowered_step()
    found = kernels.device_time(lowered, lowered.compile(), arguments)
    by_scope = found.by_scope()
    assert by_scope[("products", "forward")] > 0 < by_scope[("loop/turns", "forward")]
    assert found.busy_seconds == pytest.approx(sum(by_scope.values()) + found.unattributed_seconds)
    assert found.kernels == sorted(found.kernels, key=lambda kernel: -kernel.seconds)
    # The loop itself is no kernel: what runs in it is.
    assert not any(kernel.name.startswith("while") for kernel in found.kernels)


def events(lines):
    """A profile of one device with these lines: {name: [(operation, nanoseconds)]}."""
    planes = [
        SimpleNamespace(
            name="/device:GPU:0",
            lines=[
                SimpleNamespace(
                    name=name,
                    events=[
                        SimpleNamespace(stats=[("hlo_op", op)] if op else [], duration_ns=duration)
                        for op, duration in held
                    ],
                )
                for name, held in lines.items()
            ],
        ),
        SimpleNamespace(name="/host:CPU", lines=[]),
    ]
    return SimpleNamespace(planes=planes)


def test_kernels_of_graphs_and_unknown_ones_are_counted_apart():
    lowered, _ = lowered_step()
    module = lowered.compile().runtime_executable().hlo_modules()[0].as_serialized_hlo_module_proto()
    held = [i for computation in parse("HloModule", module).computations for i in computation.instructions]
    name = next(i.name for i in held if i.metadata.op_name.endswith("tanh"))
    lines = {
        "Stream #1": [(name, 2000), (name, 2000), ("command_buffer", 6000), (None, 1000)],
        "Steps": [(None, 9)],
    }
    found = kernels.read(events(lines), module, 2)
    assert found.busy_seconds == pytest.approx(5.5e-6)
    assert found.unattributed_seconds == pytest.approx(3.5e-6)
    with pytest.raises(ValueError, match="saw no operation"):
        kernels.read(events({"Stream #1": [("command_buffer", 6000)]}), module, 2)
