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


def test_what_a_cpus_other_threads_do_counts_until_it_has_ended():
    lowered, _ = lowered_step()
    module = lowered.compile().runtime_executable().hlo_modules()[0].as_serialized_hlo_module_proto()
    held = [i for computation in parse("HloModule", module).computations for i in computation.instructions]
    name = next(i.name for i in held if i.metadata.op_name.endswith("tanh"))

    def event(said, start, duration, operation=None):
        stats = [("hlo_op", operation)] if operation else []
        return SimpleNamespace(name=said, start_ns=start, duration_ns=duration, stats=stats)

    said = [event(name, 0, 10, name), event(name, 5000, 2000, name)]
    ends = [event(f"end: {name}", 3000, 1), event(f"end: {name}", 7000, 1), event("python", 0, 9)]

    def seconds(*lines):
        lines = [SimpleNamespace(name=str(place), events=events) for place, events in enumerate(lines)]
        plane = SimpleNamespace(name="/host:CPU", lines=lines)
        return kernels.read(SimpleNamespace(planes=[plane]), module, 1).busy_seconds

    assert seconds(said, ends) == pytest.approx(5e-6)
    # Where beginnings and ends do not fit together, what was said at the beginning counts.
    assert seconds(said, ends[:1]) == pytest.approx(2.01e-6)
