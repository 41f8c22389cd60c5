"""Rules that withstand some clients with wrong updates: median, trimmed mean, Krum.

The change of an objective's own state, such as running statistics, is a weighted mean under every algorithm:
these rules do not protect it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from fed import aggregation
from fed.algorithm import Algorithm, check_range
from fed.algorithms.averaging import averaging
from fed.protocols import PyTree


def median(server_optimizer: optax.GradientTransformation | None = None) -> Algorithm:
    """Take the median of the updates, coordinate by coordinate (Yin et al. 2018, arXiv 1803.01498).

    All clients count alike. The updates of a whole cohort are held at once, as for all rules of this file.
    """

    def combine(updates: PyTree, log_weights: jax.Array) -> PyTree:
        left_out = jnp.isneginf(log_weights)
        count = (~left_out).sum()

        def middle(leaf: jax.Array) -> jax.Array:
            ordered = _ordered(leaf, left_out)
            low, high = jnp.maximum(count - 1, 0) // 2, count // 2
            return (ordered[low] + ordered[high]) / 2

        return jax.tree.map(middle, updates)

    return averaging(aggregation.uniform, server_optimizer)._replace(combine=combine)


def trimmed_mean(
    share: float = 0.1, server_optimizer: optax.GradientTransformation | None = None
) -> Algorithm:
    """Leave out the largest and the smallest values of every coordinate (Yin et al. 2018).

    Args:
        share: of the clients that is left out at either end, at least 0 and below 0.5; rounded down. Flower
            rounds share x clients in floating point, so that it leaves out 28 of 100 for 0.29, and this 29.
        server_optimizer: as for `averaging`.
    """

    check_range("share", share, 0 <= share < 0.5, "at least 0 and below 0.5")

    def combine(updates: PyTree, log_weights: jax.Array) -> PyTree:
        left_out = jnp.isneginf(log_weights)
        count = (~left_out).sum()
        cut = jnp.floor(share * count.astype(jnp.float32) + 1e-6).astype(jnp.int32)
        place = jnp.arange(len(log_weights))
        inside = (place >= cut) & (place < count - cut)

        def trimmed(leaf: jax.Array) -> jax.Array:
            kept = aggregation.zero_where(~inside, _ordered(leaf, left_out))
            return kept.sum(0) / jnp.maximum(inside.sum(dtype=jnp.float32), 1.0)

        return jax.tree.map(trimmed, updates)

    return averaging(aggregation.uniform, server_optimizer)._replace(combine=combine)


def krum(
    byzantine: int = 1, chosen: int = 1, server_optimizer: optax.GradientTransformation | None = None
) -> Algorithm:
    """Take the updates that are nearest to most others (Blanchard et al. 2017, arXiv 1703.02757).

    A client's score is the sum of its squared distances to the n - byzantine - 2 nearest others, at least
    one. Flower counts the same neighbours; its multi-Krum weighs the chosen updates by the size of the data.

    Args:
        byzantine: clients that may be wrong; n should be above 2 x byzantine + 2.
        chosen: updates of the lowest scores that are averaged; above 1 it is multi-Krum.
        server_optimizer: as for `averaging`.
    """

    check_range("byzantine", byzantine, byzantine >= 0, "not negative")
    check_range("chosen", chosen, chosen >= 1, "at least 1")

    def combine(updates: PyTree, log_weights: jax.Array) -> PyTree:
        left_out, size = jnp.isneginf(log_weights), len(log_weights)
        distances = sum(_squared_distances(leaf) for leaf in jax.tree.leaves(updates))
        alone = left_out[:, None] | left_out[None, :] | jnp.eye(size, dtype=bool)
        ordered = jnp.sort(jnp.where(alone, jnp.inf, distances), axis=1)
        count = (~left_out).sum()
        neighbours = jnp.clip(count - byzantine - 2, 1, jnp.maximum(count - 1, 1))
        near = jnp.arange(size)[None, :] < neighbours
        scores = jnp.where(near, ordered, 0.0).sum(1)
        # A client alone has no distance; it must still win over those that are left out.
        scores = jnp.where(left_out, jnp.inf, jnp.minimum(scores, jnp.finfo(scores.dtype).max))
        rank = jnp.argsort(jnp.argsort(scores))
        taken = (rank < chosen) & ~left_out

        def mean(leaf: jax.Array) -> jax.Array:
            total = aggregation.zero_where(~taken, leaf).sum(0)
            return total / jnp.maximum(taken.sum(dtype=jnp.float32), 1.0)

        return jax.tree.map(mean, updates)

    return averaging(aggregation.uniform, server_optimizer)._replace(combine=combine)


def _ordered(leaf: jax.Array, left_out: jax.Array) -> jax.Array:
    """Sort [client, ...] by client, with those that are left out last."""
    shape = left_out.shape + (1,) * (leaf.ndim - 1)
    return jnp.sort(jnp.where(left_out.reshape(shape), jnp.inf, leaf), axis=0)


def _squared_distances(leaf: jax.Array) -> Any:
    """Compute squared distances [client, client] from differences, as inner products lose digits."""
    rows = leaf.reshape(len(leaf), -1)
    return jax.lax.map(lambda row: jnp.square(rows - row[None]).sum(1), rows)
