import jax
import jax.numpy as jnp

from profiling.traffic import Traffic, traffic


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def layer(weights, x):
    with jax.named_scope("layer"):
        return jnp.tanh(x @ weights)


def test_operands_and_results_are_moved_once():
    product = 4 * (3 * 5 + 5 * 7 + 3 * 7)
    found = traffic(layer, f32(5, 7), f32(3, 5)).rows
    assert found == {("layer", "forward"): Traffic(product, product + 2 * 4 * 3 * 7)}


def test_a_scan_moves_as_often_as_it_runs_and_clients_as_many_times():
    def stack(weights, x):
        return jax.lax.scan(lambda x, w: (layer(w, x), None), x, weights)[0]

    one = traffic(layer, f32(5, 5), f32(3, 5)).rows["layer", "forward"]
    assert traffic(stack, f32(6, 5, 5), f32(3, 5)).rows["layer", "forward"] == one.times(6)
    assert traffic(jax.vmap(layer), f32(4, 5, 5), f32(4, 3, 5)).rows["layer", "forward"] == one.times(4)


def test_half_precision_moves_half():
    x, w = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((3, 5), (5, 7)))
    half, full = traffic(layer, w, x).rows, traffic(layer, f32(5, 7), f32(3, 5)).rows
    assert 2 * half["layer", "forward"].unfused == full["layer", "forward"].unfused


def test_what_cannot_be_priced_is_named():
    def loop(w, x):
        return jax.lax.while_loop(lambda h: h.sum() < 1, lambda h: layer(w, h), x)

    assert traffic(loop, f32(5, 5), f32(3, 5)).unpriced == {"while loop": 1}
