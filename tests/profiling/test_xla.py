import types

import jax
import jax.numpy as jnp
import pytest

from profiling.flops import count
from profiling.xla import MemoryPlan, memory_plan, operations


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def compiled(function, *shapes, **options):
    return jax.jit(function, **options).lower(*shapes).compile()


def test_a_plan_adds_up_and_donation_saves_what_is_donated():
    def step(weights, x):
        return weights - jax.grad(lambda w: jnp.square(x @ w).sum())(weights)

    shapes = f32(256, 128), f32(64, 256)
    kept, donated = (memory_plan(compiled(step, *shapes, donate_argnums=d)) for d in ((), (0,)))
    assert kept.arguments == 4 * (256 * 128 + 64 * 256)
    assert kept.outputs == 4 * 256 * 128
    assert (kept.aliased, donated.aliased) == (0, kept.outputs)
    assert kept.total - donated.total >= kept.outputs - (donated.temporaries - kept.temporaries)
    assert MemoryPlan(1, 2, 4, 2, 100).total == 5


def test_xla_counts_the_body_of_a_loop_once_and_we_do_not():
    def loop(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=6)[0]

    shapes = f32(32, 64), f32(64, 64)
    once = 2 * 32 * 64 * 64
    assert count(loop, *shapes).total.products == 6 * once
    assert operations(compiled(loop, *shapes)) < 2 * once


@pytest.mark.parametrize("flops", [None, -1.0, float("inf"), float("nan")])
def test_what_cannot_be_right_is_refused(flops):
    analysis = {} if flops is None else {"flops": flops}
    for given in (analysis, [analysis], None):
        program = types.SimpleNamespace(cost_analysis=lambda given=given: given)
        with pytest.raises(ValueError, match="does not know how many operations"):
            operations(program)
    with pytest.raises(ValueError, match="gives no memory plan"):
        memory_plan(types.SimpleNamespace(memory_analysis=lambda: None))
