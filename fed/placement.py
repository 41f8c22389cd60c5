"""Arrays between the host and a mesh of devices, some of which other processes may own."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from fed.protocols import FederationError, PyTree


def lanes_of_this_process(mesh: Mesh) -> slice:
    """Places in the mesh's first axis whose devices this process owns.

    Raises:
        FederationError: they are not next to each other, or there are none.
    """
    owners = [
        {device.process_index for device in lane} for lane in mesh.devices.reshape(len(mesh.devices), -1)
    ]
    mine = [place for place, owner in enumerate(owners) if owner == {jax.process_index()}]
    if not mine or mine != list(range(mine[0], mine[-1] + 1)):
        raise FederationError(
            f"{len(owners)} lanes do not give each of {jax.process_count()} processes whole lanes: use as "
            "many as there are devices"
        )
    return slice(mine[0], mine[-1] + 1)


def put(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """NumPy arrays onto the mesh; each process gives its own rows of what is sharded."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), tree)


def replicate(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Arrays that every process has alike, on every device."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def one(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            return leaf
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = replicate(np.asarray(jax.random.key_data(leaf)), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

    return jax.tree.map(one, tree)


def fetch(tree: PyTree) -> PyTree:
    """NumPy arrays with all rows, in every process."""

    def one(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(one, tree)
