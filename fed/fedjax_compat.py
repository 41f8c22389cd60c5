"""What fedjax 0.0.17 needs to run on today's jax."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fed.protocols import PyTree


def restore_removed_names() -> None:
    """Put back the few jax names that fedjax 0.0.17 calls and today's jax lacks.

    They are set on the modules `jax` and `jax.numpy`, for the whole process; where jax has them nothing
    changes. fedjax's own algorithms, aggregators and the pmap backend need them.
    """

    def replicated(tree: PyTree, devices: Sequence[Any]) -> PyTree:
        return sharded([tree] * len(devices), devices)

    def sharded(trees: Sequence[PyTree], devices: Sequence[Any]) -> PyTree:
        mesh = jax.sharding.Mesh(np.array(devices), ("devices",))
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))
        return jax.tree.map(
            lambda *leaves: jax.device_put(np.stack([np.asarray(x) for x in leaves]), place), *trees
        )

    for module, name, value in (
        (jax, "tree_map", jax.tree.map),
        (jax, "device_put_replicated", replicated),
        (jax, "device_put_sharded", sharded),
        (jnp, "NINF", -jnp.inf),
    ):
        # jax answers names that it has removed with an AttributeError that explains, and warns of those that
        # it will remove.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            there = getattr(module, name, None) is not None
        if not there:
            setattr(module, name, value)
