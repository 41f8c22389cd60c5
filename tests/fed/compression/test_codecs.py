"""Codecs: the bytes that they count are those that they make, and what is decoded is what was simulated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fed.compression import codec
from fed.compression.quantisation import quantised
from fed.compression.sparsity import random_mask
from fed.protocols import FederationError

NAMES = ["fp32", "bf16", "q8", "q4", "q2", "topk:0.1", "mask:0.1", "mask:1"]


def tree(seed=0):
    """Arrays of one value, of whole blocks, and of parts of blocks; one is zero."""
    rng = np.random.default_rng(seed)
    shapes = {"bias": (), "kernel": (2, 64), "stack": {"a": (3, 5, 7), "b": (130,)}}
    drawn = jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )
    return drawn | {"zero": jnp.zeros(70)}


def bits(found):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found)]


def mean_of(held, values, draws=4000):
    """The mean of decoded values over keys, and its standard error."""
    keys = jax.random.split(jax.random.key(1), draws)
    decoded = np.asarray(jax.jit(jax.vmap(lambda key: held.round_trip(values, key)))(keys), np.float64)
    return decoded.mean(0), decoded.std(0) / draws**0.5


@pytest.mark.parametrize("name", NAMES)
def test_what_is_packed_is_what_is_counted_and_unpacks_to_the_same_bits(name):
    held, values, key = codec(name), tree(), jax.random.key(3)
    packed = held.pack(values, key)
    shapes = jax.eval_shape(lambda: values)
    assert len(packed) == held.bytes_of(shapes)
    simulated = jax.jit(held.round_trip)(values, key)
    assert bits(held.unpack(packed, shapes)) == bits(simulated)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), simulated) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), values
    )
    assert not np.any(simulated["zero"])
    if name in ("fp32", "mask:1"):
        assert bits(simulated) == bits(values)
    with pytest.raises(ValueError, match="bytes for these shapes"):
        held.unpack(packed + b"\0", shapes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fp32", 4 * 1000),
        ("bf16", 2 * 1000),
        ("q8", 1000 + 4 * 16),  # a float32 for each block of 64
        ("q4", 500 + 4 * 16),
        ("q2", 250 + 4 * 16),
        ("topk:0.01", 10 * 8),
        ("mask:0.05", 8 + 50 * 4),
    ],
)
def test_bytes_of_a_thousand_values(name, expected):
    assert codec(name).bytes_of({"x": jax.ShapeDtypeStruct((10, 100), jnp.float32)}) == expected


@pytest.mark.parametrize("width", [8, 4, 2])
def test_stochastic_rounding_keeps_the_mean_within_one_level(width):
    values = tree()["kernel"].reshape(-1)
    held = quantised(width)
    mean, error = mean_of(held, values)
    assert np.all(np.abs(mean - values) < 5 * error + 1e-5)
    decoded = np.asarray(held.round_trip(values, jax.random.key(0)))
    level = 2 * np.abs(values.reshape(-1, 64)).max(1) / (2**width - 1)
    assert np.all(np.abs(decoded - values).reshape(-1, 64) < 1.001 * level[:, None])
    assert len(np.unique(decoded[:64])) <= 2**width


def test_blocks_have_scales_of_their_own():
    values = jnp.concatenate([jnp.full(64, 1e-3), jnp.full(64, 1e3)])
    decoded = codec("q8").round_trip(values, jax.random.key(0))
    np.testing.assert_allclose(decoded, values, rtol=1e-6)


def test_top_k_keeps_the_largest_and_nothing_else():
    values = jnp.array([[0.1, -5.0, 0.2], [3.0, -0.3, 1.0]])
    decoded = codec("topk:0.34").round_trip(values, jax.random.key(0))
    np.testing.assert_array_equal(decoded, [[0.0, -5.0, 0.0], [3.0, 0.0, 0.0]])


def test_a_random_mask_keeps_values_or_their_mean():
    values = tree()["stack"]["b"]
    kept = np.asarray(codec("mask:0.3").round_trip(values, jax.random.key(0)))
    assert np.count_nonzero(kept) == 39
    np.testing.assert_array_equal(kept[kept != 0], np.asarray(values)[kept != 0])
    mean, error = mean_of(random_mask(0.3, unbiased=True), values)
    assert np.all(np.abs(mean - values) < 5 * error)
    mean, error = mean_of(random_mask(0.1), values)
    assert np.all(np.abs(mean - 0.1 * values) < 5 * error)


@pytest.mark.parametrize("name", ["q8", "q2"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_not_hidden(name, bad):
    values = tree()["kernel"].at[1, 3].set(bad)
    assert not np.isfinite(codec(name).round_trip(values, jax.random.key(0))).all()


@pytest.mark.parametrize(
    "name", ["q3", "q", "topk", "topk:", "topk:0", "mask:1.5", "mask:nan", "gzip", "", "Q2"]
)
def test_an_unknown_codec_is_named_with_those_that_there_are(name):
    with pytest.raises(FederationError, match=r"there is no codec.*use fp32, bf16, q8, q4, q2, topk:SHARE"):
        codec(name)
