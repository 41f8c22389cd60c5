"""CTC heads: batch normalisation over valid frames, running statistics, the probe without blocks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v_jax.objective.pretraining import bind
from w2v_jax.randomness import Stream, utterance_keys
from w2v_jax.recognition.heads import CTCHead, FrameNorm, HeadConfig, initial_statistics

DIM = 3
FRAMES = (6, 0, 3)


def norm():
    _, apply = bind(lambda key: FrameNorm(DIM))
    return {"scale": jnp.array([1.5, 1.0, 0.5]), "bias": jnp.array([0.0, 0.2, -0.1])}, jax.jit(
        apply, static_argnums=4
    )


def make_input(frames=FRAMES, time=8, seed=0):
    rng = np.random.default_rng(seed)
    valid = np.arange(time)[None] < np.array(frames)[:, None]
    x = rng.standard_normal((len(frames), time, DIM)) * np.array([1.0, 3.0, 0.2]) + 2.0
    return x.astype(np.float32), valid


def running(mean=(0.5, -1.0, 2.0), variance=(1.0, 4.0, 0.25)):
    return {"mean": jnp.array(mean), "variance": jnp.array(variance)}


def test_statistics_run_over_valid_frames_alone():
    parameters, apply = norm()
    x, valid = make_input()
    before = running()
    y, after = apply(parameters, jnp.asarray(x), jnp.asarray(valid), before, True)
    held = x[valid].astype(np.float64)
    mean, variance = held.mean(0), held.var(0)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * [1.5, 1.0, 0.5] + [0.0, 0.2, -0.1]
    np.testing.assert_allclose(np.asarray(y)[valid], expected[valid], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after["mean"], 0.9 * np.array(before["mean"]) + 0.1 * mean, rtol=1e-5)
    unbiased = held.var(0, ddof=1)
    np.testing.assert_allclose(
        after["variance"], 0.9 * np.array(before["variance"]) + 0.1 * unbiased, rtol=1e-5
    )
    x[~valid] = 1e4  # padding is never looked at
    again, after_again = apply(parameters, jnp.asarray(x), jnp.asarray(valid), before, True)
    np.testing.assert_array_equal(np.asarray(again)[valid], np.asarray(y)[valid])
    chex.assert_trees_all_equal(after_again, after)


def test_evaluation_uses_the_running_statistics_and_keeps_them():
    parameters, apply = norm()
    x, valid = make_input()
    before = running()
    y, after = apply(parameters, jnp.asarray(x), jnp.asarray(valid), before, False)
    expected = (x - [0.5, -1.0, 2.0]) / np.sqrt(np.array([1.0, 4.0, 0.25]) + 1e-5)
    np.testing.assert_allclose(y, expected * [1.5, 1.0, 0.5] + [0.0, 0.2, -0.1], rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_equal(after, before)


@pytest.mark.parametrize("frames", [(0, 0), (1, 0)])
def test_few_valid_frames_are_finite(frames):
    parameters, apply = norm()
    x, valid = make_input(frames)

    def total(x, parameters):
        y, statistics = apply(parameters, x, jnp.asarray(valid), running(), True)
        return jnp.where(jnp.asarray(valid)[..., None], y, 0.0).sum(), statistics

    gradients, statistics = jax.grad(total, argnums=(0, 1), has_aux=True)(jnp.asarray(x), parameters)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((gradients, statistics)))
    if not sum(frames):
        chex.assert_trees_all_equal(statistics, running())


def test_running_statistics_come_close_to_those_of_the_data():
    parameters, apply = norm()
    statistics = running()
    for seed in range(80):
        x, valid = make_input((20, 30), 30, seed)
        _, statistics = apply(parameters, jnp.asarray(x), jnp.asarray(valid), statistics, True)
    np.testing.assert_allclose(statistics["mean"], 2.0, atol=0.5)
    np.testing.assert_allclose(statistics["variance"], [1.0, 9.0, 0.04], rtol=0.4)


def head(num_blocks, dropout=0.0):
    config = HeadConfig(num_tokens=4, num_blocks=num_blocks, width=5, dropout=dropout)
    init, apply = bind(lambda key: CTCHead(DIM, config, key, "float32"))
    return config, init(jax.random.key(1)), apply


@pytest.mark.parametrize("num_blocks", [0, 1, 3])
def test_initial_statistics_have_the_shapes_that_training_gives(num_blocks):
    config, parameters, apply = head(num_blocks)
    x, valid = make_input()
    before = initial_statistics(DIM, config)
    _, after = apply(parameters, jnp.asarray(x), jnp.asarray(valid), before, training=True)
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
    assert len(after) == num_blocks + 1
    for name, held in before.items():
        assert not held["mean"].any(), name
        assert (held["variance"] == 1).all(), name
        # Every norm looks at its own input.
        assert (after[name]["mean"] != 0).any(), name


def test_no_blocks_are_a_linear_probe():
    config, parameters, apply = head(0)
    assert set(parameters) == {"input_norm", "output"}
    x, valid = make_input()
    statistics = {"input_norm": running()}
    y, _ = apply(parameters, jnp.asarray(x), jnp.asarray(valid), statistics)
    normed = (x - np.array([0.5, -1.0, 2.0])) / np.sqrt(np.array([1.0, 4.0, 0.25]) + 1e-5)
    expected = normed @ np.asarray(parameters["output"]["kernel"]) + np.asarray(parameters["output"]["bias"])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert config.num_blocks == 0


def test_blocks_are_linear_norm_and_leaky_relu():
    _, parameters, apply = head(1)
    x, valid = make_input()
    block = {"mean": jnp.linspace(-0.5, 0.5, 5), "variance": jnp.linspace(0.5, 2.0, 5)}
    y, _ = apply(parameters, jnp.asarray(x), jnp.asarray(valid), {"input_norm": running(), "blocks_0": block})
    hidden = (x - np.array([0.5, -1.0, 2.0])) / np.sqrt(np.array([1.0, 4.0, 0.25]) + 1e-5)
    linear = parameters["blocks_0"]["linear"]
    hidden = hidden @ np.asarray(linear["kernel"]) + np.asarray(linear["bias"])
    hidden = (hidden - np.asarray(block["mean"])) / np.sqrt(np.asarray(block["variance"]) + 1e-5)
    hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    expected = hidden @ np.asarray(parameters["output"]["kernel"]) + np.asarray(parameters["output"]["bias"])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_a_fresh_head_says_blank():
    _, parameters, _ = head(3)
    bias = np.asarray(parameters["output"]["bias"])
    share = np.exp(bias) / np.exp(bias).sum()
    np.testing.assert_allclose(share, [6 / 7, *[1 / 21] * 3], rtol=1e-5)


def test_dropout_is_drawn_by_utterance():
    _, parameters, apply = head(3, dropout=0.5)
    x, valid = (jnp.asarray(value) for value in make_input((8, 8, 8)))
    statistics = initial_statistics(DIM, HeadConfig(num_tokens=4, num_blocks=3, width=5))

    def scores(ids, rows):
        keys = utterance_keys(jax.random.key(3), jnp.array(ids, jnp.uint32), Stream.DROPOUT)
        return apply(parameters, x[rows], valid[rows], statistics, dropout_keys=keys)[0]

    whole, turned = scores([1, 2, 3], jnp.array([0, 1, 2])), scores([3, 1, 2], jnp.array([2, 0, 1]))
    np.testing.assert_allclose(turned[jnp.array([1, 2, 0])], whole, rtol=1e-5, atol=1e-6)
    others = scores([7, 8, 9], jnp.array([0, 1, 2]))
    assert float(jnp.abs(others - whole).max()) > 0.01
    plain = apply(parameters, x, valid, statistics)[0]
    assert float(jnp.abs(plain - whole).max()) > 0.01
