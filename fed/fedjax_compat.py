"""Names that fedjax 0.0.17 needs and today's jax lacks."""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fed.protocols import PyTree


def restore_removed_names() -> None:
    """Put back the few jax names that fedjax 0.0.17 calls and today's jax lacks.

    They are set on the modules `jax` and `jax.numpy`, for the whole process; names that jax has stay as they
    are. fedjax's own algorithms, its aggregators and its pmap backend need them.
    """
    for module, name, value in (
        (jax, "tree_map", jax.tree.map),
        (jax, "device_put_replicated", _replicated),
        (jax, "device_put_sharded", _sharded),
        (jnp, "NINF", -jnp.inf),
    ):
        # For a removed name jax raises an AttributeError that explains; for one that it will remove it warns.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            there = getattr(module, name, None) is not None
        if not there:
            setattr(module, name, value)
    if "a_max" not in inspect.signature(jnp.clip).parameters:
        jnp.clip = _clip_with_old_names(jnp.clip)


def _replicated(tree: PyTree, devices: Sequence[Any]) -> PyTree:
    return _sharded([tree] * len(devices), devices)


def _sharded(trees: Sequence[PyTree], devices: Sequence[Any]) -> PyTree:
    mesh = jax.sharding.Mesh(np.array(devices), ("devices",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))
    return jax.tree.map(
        lambda *leaves: jax.device_put(np.stack([np.asarray(x) for x in leaves]), place), *trees
    )


def _clip_with_old_names(clip: Any) -> Any:
    """`jnp.clip` that takes its bounds as `a_min` and `a_max` too."""

    def clip_with_old_names(arr, /, min=None, max=None, *, a_min=None, a_max=None):
        return clip(arr, a_min if min is None else min, a_max if max is None else max)

    return clip_with_old_names
