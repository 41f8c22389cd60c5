"""Central differential privacy: clipped client updates, their noisy mean (McMahan et al. 2018).

The unit of privacy is the client. A trusted server sees the updates and releases a private model.
Client losses and other reports are not private: they are for whoever runs the simulation. Noise comes
from the run's seed, so that runs can be repeated; a deployment would draw it from a secret source.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fed.protocols import PyTree

IsStacked = Callable[[Any], bool]


class Privacy(NamedTuple):
    """Settings of privacy: how updates are clipped, and how much noise their sum gets.

    Attributes:
        clip_norm: the most that one client moves the sum of updates, in the Euclidean norm.
        noise_multiplier: standard deviation of the noise on the sum, in units of `clip_norm`.
        expected_clients: the mean number of clients that answer in a round. The sum is divided by this
            fixed number: the number that did answer would reveal the size of the cohort.
        by_layer: clip every parameter array separately, to clip_norm / sqrt(number of arrays).
        is_stacked: path of a leaf -> whether its leading axis counts layers; `by_layer` then clips each
            layer separately.
    """

    clip_norm: float
    noise_multiplier: float
    expected_clients: float
    by_layer: bool = False
    is_stacked: IsStacked = lambda path: False


def clip(update: PyTree, privacy: Privacy) -> tuple[PyTree, jax.Array]:
    """Scale an update down to the clip norm.

    Args:
        update: one client's, without a client axis; finite.
        privacy: the norm, and whether arrays are clipped separately.

    Returns:
        The clipped update, whose norm is at most `clip_norm`, and the share of its arrays that were scaled.
    """
    if not privacy.by_layer:
        norm = optax.tree.norm(update)
        scale = _scale(norm, privacy.clip_norm)
        clipped = (norm > privacy.clip_norm).astype(jnp.float32)
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), update), clipped
    leaves, structure = jax.tree_util.tree_flatten_with_path(update)
    arrays = sum(leaf.shape[0] if privacy.is_stacked(path) else 1 for path, leaf in leaves)
    limit = privacy.clip_norm / math.sqrt(arrays)
    found, scaled = [], jnp.float32(0.0)
    for path, leaf in leaves:
        axes = tuple(range(1 if privacy.is_stacked(path) else 0, leaf.ndim))
        norm = jnp.sqrt(jnp.square(leaf).sum(axes, keepdims=True))
        found.append(leaf * _scale(norm, limit).astype(leaf.dtype))
        scaled += (norm > limit).sum().astype(jnp.float32)
    return jax.tree.unflatten(structure, found), scaled / arrays


def _scale(norm: jax.Array, limit: float) -> jax.Array:
    return jnp.minimum(1.0, limit / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))


def noisy_mean(total: PyTree, privacy: Privacy, key: jax.Array) -> PyTree:
    """Compute (sum of clipped updates + noise) / expected clients."""
    leaves, structure = jax.tree.flatten(total)
    keys = jax.random.split(key, len(leaves))
    deviation = privacy.noise_multiplier * privacy.clip_norm
    noisy = [
        (leaf + deviation * jax.random.normal(k, leaf.shape, leaf.dtype)) / privacy.expected_clients
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, noisy)
