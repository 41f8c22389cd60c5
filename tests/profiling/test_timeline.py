import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from profiling.timeline import compile_with_timeline, read, scope_of_operation
from profiling.xla import memory_plan


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def timeline(function, *shapes, donate=()):
    return compile_with_timeline(jax.jit(function, donate_argnums=donate).lower(*shapes))


def layer(name, weights, x):
    with jax.named_scope(name):
        return jnp.tanh(x @ weights)


def loss(weights, x):
    return layer("second", weights, layer("first", weights, x)).sum()


def test_the_peak_holds_what_the_backward_pass_waits_for():
    compiled, found = timeline(jax.grad(loss), f32(512, 512), f32(2048, 512))
    assert found.plan == memory_plan(compiled)
    # Both layers' results are live at once; each is 4 MiB.
    assert 2 * 4 * 2**20 <= found.live_bytes.max() <= found.plan.temporaries
    assert found.peak_bytes == found.standing_bytes + found.live_bytes[found.peak_moment] <= found.plan.total
    assert sum(row.bytes for row in found.at_peak) == found.live_bytes.max()
    assert {"first", "second"} >= {row.scope for row in found.at_peak if row.bytes > 2**20} != set()
    assert len(found.scopes) == len(found.directions) == len(found.live_bytes)
    assert {"forward", "backward"} <= set(found.directions)


def test_what_a_scan_keeps_of_every_layer_is_in_the_peak():
    def stacked(length):
        def loss(weights, x):
            with jax.named_scope("stack"):
                return jax.lax.scan(lambda x, w: (layer("layer", w, x), None), x, weights)[0].sum()

        return timeline(jax.grad(loss), f32(length, 64, 64), f32(1024, 64))[1]

    few, many = stacked(4), stacked(12)
    kept = 4 * 1024 * 64
    assert many.live_bytes.max() - few.live_bytes.max() >= 8 * kept
    assert any("stack" in row.scope and row.bytes >= 12 * kept for row in many.at_peak)


def test_donated_arguments_stand_once():
    def step(weights, x):
        return weights - jax.grad(loss)(weights, x)

    shapes = f32(512, 512), f32(64, 512)
    kept, donated = (timeline(step, *shapes, donate=d)[1] for d in ((), (0,)))
    assert kept.standing_bytes - donated.standing_bytes == 4 * 512 * 512


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("jit(f)/jvp(Model)/while/body/closed_call/layer/tanh", ("Model/layer", "forward", "tanh")),
        ("jit(step)/transpose(jvp(Model))/encoder/while/body/mul", ("Model/encoder", "backward", "mul")),
        ("jit(f)/transpose(jvp())/checkpoint/rematted_computation/layer/sin", ("layer", "backward", "sin")),
        ("jit(f)/jit(_einsum)/bfo,co->bfc/dot_general", ("", "forward", "dot_general")),
        ("", ("", "forward", "(unnamed)")),
    ],
)  # fmt: skip
def test_paths_are_told_without_what_the_program_puts_there(path, told):
    assert scope_of_operation(path) == told


def test_a_compiler_that_does_not_tell_is_named():
    compiled = jax.jit(loss).lower(f32(8, 8), f32(4, 8)).compile()
    with pytest.raises(ValueError, match="does not tell how long its buffers live"):
        read(compiled, "")


def test_a_persistent_cache_neither_hides_the_timeline_nor_is_lost(tmp_path):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    compilation_cache.reset_cache()
    try:
        jax.config.update(names[0], str(tmp_path))
        jax.config.update(names[1], 0.0)
        shapes = f32(24, 24), f32(6, 24)  # of no other test, whose programs jax would remember
        jax.jit(loss).lower(*shapes).compile()
        warm = len(list(tmp_path.iterdir()))
        assert warm
        for _ in range(2):
            assert timeline(loss, *shapes)[1].peak_bytes > 0
        assert len(list(tmp_path.iterdir())) == warm
        jax.jit(lambda w, x: loss(w, x) + 1).lower(*shapes).compile()
        assert len(list(tmp_path.iterdir())) > warm
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
