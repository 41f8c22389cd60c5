"""Arrays between the host and a mesh of devices, some of which other processes may own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fed.protocols import FederationError, PyTree

SHARDS = "shards"  # the mesh's axis over which one model is spread


def shard_spec(shape: tuple[int, ...], shards: int) -> P:
    """Spread a model's array along its longest axis that `shards` divides, or not at all."""
    divisible = [axis for axis, size in enumerate(shape) if size % shards == 0 and size > 1]
    if shards == 1 or not divisible:
        return P()
    longest = max(divisible, key=lambda axis: (shape[axis], axis))
    return P(*[None] * longest, SHARDS)


def model_shardings(mesh: Mesh, tree: PyTree) -> PyTree:
    """Build the shardings of a server's state: the same in every lane, spread over the lane's shards."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, shard_spec(leaf.shape, mesh.shape[SHARDS])), tree)


def lanes_of_this_process(mesh: Mesh) -> slice:
    """Find the lanes, by their place in the mesh's first axis, whose devices this process owns.

    Raises:
        FederationError: they are not next to each other, or this process owns none.
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
    """Move NumPy arrays onto the mesh; each process gives its own rows of a sharded array."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), tree)


def replicate(tree: PyTree, shardings: PyTree) -> PyTree:
    """Move arrays that are the same in every process onto the mesh.

    Args:
        tree: NumPy or JAX arrays.
        shardings: one for all arrays, or one for each.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    if isinstance(shardings, NamedSharding):
        whole = shardings
        shardings = jax.tree.map(lambda leaf: whole, tree)

    def one(leaf: Any, sharding: NamedSharding) -> Any:
        if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            return leaf
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = replicate(np.asarray(jax.random.key_data(leaf)), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        held = np.asarray(leaf)
        return jax.make_array_from_callback(held.shape, sharding, lambda index: held[index])

    return jax.tree.map(one, tree, shardings)


def same_everywhere(number: int) -> bool:
    """Tell whether all processes have the same 32-bit number; all of them must call this."""
    if jax.process_count() == 1:
        return True
    found = np.asarray(multihost_utils.process_allgather(np.uint32(number)))
    return bool((found == found.flat[0]).all())


def first_process_says(number: int) -> int:
    """Get the first process's number in all processes; all of them must call this."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def fetch(tree: PyTree) -> PyTree:
    """Copy arrays to the host as NumPy arrays with all rows, in every process."""

    def one(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(one, tree)
