"""Weighted means of client updates, accumulated client by client.

Every rule is a softmax over log weights: FedAvg takes the logarithm of the data's size, the
loss-weighted rule the negative loss. Losses are known only after training: the streaming softmax with a
running maximum needs no second pass over the clients, and cannot underflow.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fed.protocols import PyTree

LogWeight = Callable[[jax.Array, jax.Array], jax.Array]


def fedavg(loss: jax.Array, data_weight: jax.Array) -> jax.Array:
    """Take log(data weight): the mean weighted by the size of the data (McMahan et al. 2017)."""
    del loss
    return jnp.log(data_weight)


def loss_weighted(temperature: float = 1.0) -> LogWeight:
    """Take -loss / temperature: alpha_k = exp(-L_k) / sum_j exp(-L_j) (Gao et al., ICASSP 2022).

    The loss is the mean per masked frame, a few nats, over the client's last local epoch, or over all its
    local steps where its work is given in steps; a loss summed over frames would let one client take all.
    Data sizes play no part.
    """

    def log_weight(loss: jax.Array, data_weight: jax.Array) -> jax.Array:
        del data_weight
        return -loss / temperature

    return log_weight


def uniform(loss: jax.Array, data_weight: jax.Array) -> jax.Array:
    """Take 0: all clients count alike. Privacy allows this rule only: other weights come from the data."""
    del loss
    return jnp.zeros_like(data_weight)


RULES: dict[str, Callable[..., LogWeight]] = {
    "fedavg": lambda temperature=1.0: fedavg,
    "loss-weighted": loss_weighted,
    "uniform": lambda temperature=1.0: uniform,
}


class Accumulator(NamedTuple):
    """A running weighted sum; the true value is scaled by exp(log_scale)."""

    log_scale: jax.Array  # running maximum of log weights, -inf while empty
    weight: jax.Array  # sum of exp(log weight - log_scale)
    values: PyTree  # sum of exp(log weight - log_scale) x value


def empty(like: PyTree) -> Accumulator:
    """Make an accumulator without clients, for values shaped like `like`."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), like)
    return Accumulator(jnp.float32(-jnp.inf), jnp.float32(0.0), zeros)


def add(accumulator: Accumulator, values: PyTree, log_weights: jax.Array) -> Accumulator:
    """Fold clients in.

    Args:
        accumulator: the accumulator of the clients so far.
        values: leaves [client, ...], finite wherever the log weight is.
        log_weights: [client]; -inf leaves a client out, whatever its values are.
    """
    left_out = jnp.isneginf(log_weights)
    log_scale = jnp.maximum(accumulator.log_scale, log_weights.max())
    reference = jnp.where(jnp.isneginf(log_scale), 0.0, log_scale)
    kept = jnp.exp(accumulator.log_scale - reference)
    shares = jnp.exp(log_weights - reference)
    return Accumulator(
        log_scale,
        kept * accumulator.weight + shares.sum(),
        jax.tree.map(
            lambda old, new: kept * old + _weighted_sum(shares, zero_where(left_out, new)),
            accumulator.values,
            values,
        ),
    )


def combine(accumulators: Accumulator) -> Accumulator:
    """Merge accumulators stacked along a leading axis (clients, chunks or devices)."""
    log_scale = accumulators.log_scale.max()
    reference = jnp.where(jnp.isneginf(log_scale), 0.0, log_scale)
    shares = jnp.exp(accumulators.log_scale - reference)
    return Accumulator(
        log_scale,
        (shares * accumulators.weight).sum(),
        jax.tree.map(lambda leaf: _weighted_sum(shares, leaf), accumulators.values),
    )


def finish(accumulator: Accumulator) -> PyTree:
    """Compute the weighted mean; zero if no client took part."""
    divisor = jnp.where(accumulator.weight > 0, accumulator.weight, 1.0)
    return jax.tree.map(lambda leaf: leaf / divisor, accumulator.values)


def total(accumulator: Accumulator) -> PyTree:
    """Compute the weighted sum; zero if no client took part."""
    scale = jnp.exp(accumulator.log_scale)
    return jax.tree.map(lambda leaf: scale * leaf, accumulator.values)


def _weighted_sum(shares: jax.Array, leaf: jax.Array) -> jax.Array:
    """Sum over the leading axis; a matrix product would be rounded to fewer bits on accelerators."""
    return (shares.reshape(shares.shape + (1,) * (leaf.ndim - 1)) * leaf).sum(0)


def zero_where(condition: jax.Array, leaf: jax.Array) -> jax.Array:
    """Replace the rows of some clients of `leaf` [client, ...] by zeros (multiplying gives 0 x inf = NaN)."""
    shape = condition.shape + (1,) * (leaf.ndim - 1)
    return jnp.where(condition.reshape(shape), jnp.zeros_like(leaf), leaf)
