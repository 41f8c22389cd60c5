import jax
import jax.numpy as jnp
import numpy as np
import pytest

from profiling.residuals import residuals
from tests.configs import VARIANTS
from w2v_jax.config import BASE
from w2v_jax.objective.pretraining import bind_model


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def layer(weights, x):
    with jax.named_scope("layer"):
        return jnp.sin(x @ weights)


def test_a_layer_keeps_its_result_its_input_and_its_weights():
    def two(parameters, x):
        return layer(parameters["b"], layer(parameters["a"], x)).sum()

    found = residuals(two, {"a": f32(5, 7), "b": f32(7, 2)}, f32(3, 5))
    # Both cosines and the first sine; the input of the first product; the weights of the second.
    assert found.rows == {"layer": 4 * (2 * 3 * 7 + 3 * 2)}
    assert found.by_module() == found.rows
    assert (found.inputs, found.parameters) == (4 * 15, 4 * 14)


def test_what_a_function_closes_over_is_told_apart():
    closed = jnp.ones((5, 7))

    def loss(parameters, x):
        return jnp.tanh((x * parameters) @ closed).sum()

    found = residuals(loss, f32(3, 5), f32(3, 5))
    assert found.constants == 4 * 35


def test_a_scans_layers_keep_as_many_times_one():
    def stack(length):
        def loss(stacked, x):
            return jax.lax.scan(lambda x, w: (layer(w, x), None), x, stacked)[0].sum()

        return residuals(loss, f32(length, 6, 6), f32(3, 6)).activations

    assert stack(8) == 2 * stack(4)


def forward(config):
    init, apply = bind_model(config)

    def loss(parameters, waveform, num_samples, mask):
        predictions, _ = apply(parameters, waveform, num_samples, mask)
        return jnp.square(predictions.context).mean() + jnp.square(predictions.targets).mean()

    return init, loss


@pytest.mark.parametrize("name", ["group-norm", pytest.param("layer-norm", marks=pytest.mark.slow)])
def test_what_is_traced_is_what_jax_keeps(name):
    config = VARIANTS[name]
    init, loss = forward(config)
    parameters = jax.jit(init)(jax.random.key(0))
    frames = config.num_frames(900)
    arguments = (jnp.ones((2, 900)), jnp.array([900, 700], jnp.int32), jnp.zeros((2, frames), bool))
    found = residuals(loss, parameters, *arguments)
    _, pull = jax.vjp(lambda p: loss(p, *arguments), parameters)
    kept = {id(leaf): leaf for leaf in jax.tree.leaves(pull)}
    actual = sum(leaf.nbytes for leaf in kept.values())
    traced = found.activations + found.parameters + found.inputs
    np.testing.assert_allclose(traced, actual, rtol=0.02)
    assert 0 < found.parameters <= sum(leaf.nbytes for leaf in jax.tree.leaves(parameters))


@pytest.mark.parametrize(("batch", "seconds", "known_gb"), [(4, 5.5, 3.11), (8, 12.0, 15.36)])
def test_base_keeps_what_was_found_for_it(batch, seconds, known_gb):
    # The figures of an earlier measurement of another port, parameters apart.
    init, loss = forward(BASE)
    samples = round(seconds * 16_000)
    parameters = jax.eval_shape(init, jax.random.key(0))
    found = residuals(
        loss,
        parameters,
        f32(batch, samples),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
        jax.ShapeDtypeStruct((batch, BASE.num_frames(samples)), jnp.bool_),
    )
    assert found.activations / 1e9 == pytest.approx(known_gb, rel=0.03)
    layers = {
        scope.split("/")[-1]: size for scope, size in found.by_module(3).items() if "conv_layers" in scope
    }
    # The paper's Figure 2: the first CNN layers stand out.
    assert layers["conv_layers_0"] > 2 * layers["conv_layers_1"] > 2 * layers["conv_layers_2"]
