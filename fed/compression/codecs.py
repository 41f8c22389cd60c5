"""A codec: how arrays cross between clients and server in fewer bytes."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fed.algorithm import array_bytes
from fed.protocols import PyTree

Wire = tuple[jax.Array, ...]


class Codec(NamedTuple):
    """Two pure functions over one array, and what follows from them over a tree of arrays.

    Attributes:
        name: as `fed.compression.codec` reads it.
        encode: (array, key) -> the arrays that cross.
        decode: (the arrays that crossed, shape and dtype) -> array.
        exact: float32 arrays cross unchanged.
        sparse: most values cross as zeros, so that it suits updates but not a model.
        expands: values grow to keep their mean, so that the error may exceed the array itself; with error
            feedback the errors would grow from round to round.
    """

    name: str
    encode: Callable[[jax.Array, jax.Array], Wire]
    decode: Callable[[Wire, jax.ShapeDtypeStruct], jax.Array]
    exact: bool = False
    sparse: bool = False
    expands: bool = False

    def round_trip(self, tree: PyTree, key: jax.Array) -> PyTree:
        """Compute the tree that the receiver decodes; pure, for use inside a program.

        Args:
            tree: arrays of floating-point numbers.
            key: of the codec's random draws.
        """
        return self._decoded(self._encoded(tree, key), tree)

    def pack(self, tree: PyTree, key: jax.Array) -> bytes:
        """Serialise a tree on the host: exactly what would cross; arguments as of `round_trip`."""
        wires = jax.jit(self._encoded)(tree, key)
        return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(wires))

    def unpack(self, data: bytes, shapes: PyTree) -> PyTree:
        """Decode what `pack` made, to the same bits as `round_trip`.

        Args:
            data: from `pack`.
            shapes: a tree of arrays, concrete or abstract, of the same structure, shapes and dtypes.

        Raises:
            ValueError: there are more or fewer bytes than these shapes need.
        """
        wires, structure = jax.tree.flatten(self._wire_shapes(shapes))
        if len(data) != array_bytes(wires):
            raise ValueError(
                f"{self.name} needs {array_bytes(wires)} bytes for these shapes, got {len(data)}"
            )
        found, start = [], 0
        for wire in wires:
            held = np.frombuffer(data, wire.dtype, wire.size, start)
            found.append(jnp.asarray(held.reshape(wire.shape)))
            start += held.nbytes
        return jax.jit(lambda held: self._decoded(held, shapes))(jax.tree.unflatten(structure, found))

    def bytes_of(self, shapes: PyTree) -> int:
        """Count the bytes of `pack` from shapes alone."""
        return array_bytes(self._wire_shapes(shapes))

    def _wire_shapes(self, shapes: PyTree) -> PyTree:
        return jax.eval_shape(self._encoded, shapes, jax.eval_shape(lambda: jax.random.key(0)))

    def _encoded(self, tree: PyTree, key: jax.Array) -> list[Wire]:
        leaves = map(jnp.asarray, jax.tree.leaves(tree))
        return [self.encode(leaf, jax.random.fold_in(key, place)) for place, leaf in enumerate(leaves)]

    def _decoded(self, wires: list[Wire], like: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(like)
        shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
        return jax.tree.unflatten(structure, map(self.decode, wires, shapes))


def as_dtype(name: str, dtype: jnp.dtype) -> Codec:
    """Let values cross in another dtype, rounded to the nearest."""

    def encode(array: jax.Array, key: jax.Array) -> Wire:
        del key
        return (array.astype(dtype),)

    def decode(wire: Wire, like: jax.ShapeDtypeStruct) -> jax.Array:
        return wire[0].astype(like.dtype)

    return Codec(name, encode, decode, exact=dtype == jnp.float32)
