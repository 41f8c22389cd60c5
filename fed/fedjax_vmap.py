"""A vmap backend for fedjax: any fedjax algorithm over several clients at a time, unchanged.

fedjax runs what an algorithm does for each client by a backend: one client after another (`jit`) or one
on each device (`pmap`). This one stacks clients on one device. fedjax is imported lazily.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from fed.protocols import FederationError, PyTree

if TYPE_CHECKING:
    import fedjax


def vmap_backend(chunk: int = 8) -> "fedjax.core.for_each_client.ForEachClientBackend":
    """A for-each-client backend for `fedjax.set_for_each_client_backend`.

    Clients come and leave in the order given, a chunk at a time, and only one chunk's data and states are
    held. A client with fewer batches than another one of its chunk waits, its state unchanged, and gets
    no results for steps that it did not make. Clients of a chunk whose inputs differ in shape, and
    batches that do (a smaller last one), run shape by shape.

    Args:
        chunk: clients side by side. Convolutions become grouped ones under vmap, which are slow on CPU:
            see docs/decisions/0012.

    Raises:
        FederationError: the chunk is below 1.
    """
    from fedjax.core import for_each_client as base

    if chunk < 1:
        raise FederationError(f"chunk must be at least 1, got {chunk}")

    class VmapBackend(base.ForEachClientBackend):
        """See `vmap_backend`."""

        def __call__(self, client_init: Any, client_step: Any, client_final: Any) -> Any:
            return _for_each_client(client_init, client_step, client_final, chunk)

    return VmapBackend()


def _for_each_client(client_init: Any, client_step: Any, client_final: Any, chunk: int) -> Any:
    """Build the function that fedjax's algorithms call with the shared input and the clients."""

    def masked_step(state: PyTree, batch: PyTree, active: jax.Array) -> tuple[PyTree, PyTree]:
        new, result = client_step(state, batch)
        return jax.tree.map(lambda after, before: jnp.where(active, after, before), new, state), result

    def start(shared: PyTree, inputs: PyTree) -> PyTree:
        # Copies, since steps take over the state's memory. The size is for clients without any input.
        return jax.tree.map(jnp.copy, jax.vmap(client_init, (None, 0), axis_size=chunk)(shared, inputs))

    start = jax.jit(start)
    step = jax.jit(jax.vmap(client_step, axis_size=chunk), donate_argnums=0)
    some_step = jax.jit(jax.vmap(masked_step, axis_size=chunk), donate_argnums=0)
    final = jax.jit(jax.vmap(client_final, (None, 0), axis_size=chunk), donate_argnums=1)

    def run(
        shared_input: PyTree, clients: Iterable[tuple[Any, Iterable[PyTree], PyTree]]
    ) -> Iterator[tuple[Any, PyTree, list[PyTree]]]:
        for members in _chunks(clients, chunk):
            found: dict[int, tuple[Any, PyTree, list[PyTree]]] = {}
            for alike in _groups([(place, client[2]) for place, client in enumerate(members)]):
                places = [place for place, _ in alike]
                found |= zip(
                    places, run_alike(shared_input, [members[place] for place in places]), strict=True
                )
            yield from (found[place] for place in range(len(members)))

    def run_alike(shared_input: PyTree, members: list[Any]) -> Iterator[tuple[Any, PyTree, list[PyTree]]]:
        """Run clients whose inputs have one shape."""
        names, batches, inputs = zip(*members, strict=True)
        streams = [iter(of_client) for of_client in batches]
        state = start(shared_input, _stack(_padded(inputs, chunk)))
        results: list[list[PyTree]] = [[] for _ in names]
        while alive := [(place, b) for place, s in enumerate(streams) if (b := next(s, None)) is not None]:
            for alike in _groups(alive):
                places, stacked = [place for place, _ in alike], _stacked(alike, chunk)
                if len(places) == len(names):
                    state, result = step(state, stacked)
                else:
                    active = np.zeros(chunk, bool)
                    active[places] = True
                    state, result = some_step(state, stacked, active)
                for place, of_client in zip(places, _unstack(result, places), strict=True):
                    results[place].append(of_client)
        outputs = _unstack(final(shared_input, state), list(range(len(names))))
        return zip(names, outputs, results, strict=True)

    return run


def _chunks(clients: Iterable[Any], size: int) -> Iterator[list[Any]]:
    members = []
    for client in clients:
        members.append(client)
        if len(members) == size:
            yield members
            members = []
    if members:
        yield members


def _padded(rows: Any, size: int) -> list[Any]:
    """Repeat the first row up to a chunk's size, so that one program serves all chunks."""
    return [*rows, *[rows[0]] * (size - len(rows))]


def _stack(rows: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: _stack_leaves(leaves), *rows)


def _stack_leaves(leaves: tuple[Any, ...]) -> Any:
    if all(isinstance(leaf, np.ndarray | np.generic) for leaf in leaves):
        return np.stack(leaves)
    return jnp.stack(leaves)


def _groups(placed: list[tuple[int, PyTree]]) -> list[list[tuple[int, PyTree]]]:
    """Group (place, tree) by the trees' structure, shapes and dtypes."""
    groups: dict[Any, list[tuple[int, PyTree]]] = {}
    for place, tree in placed:
        leaves, structure = jax.tree.flatten(tree)
        shape = (structure, *((np.shape(leaf), _dtype(leaf)) for leaf in leaves))
        groups.setdefault(shape, []).append((place, tree))
    return list(groups.values())


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf)


def _stacked(alike: list[tuple[int, PyTree]], chunk: int) -> PyTree:
    """Batches [chunk, ...], each in its client's place; the first one fills the other places."""
    rows = [alike[0][1]] * chunk
    for place, batch in alike:
        rows[place] = batch
    return _stack(rows)


@jax.jit
def _split(tree: PyTree) -> list[PyTree]:
    """Split leaves [client, ...] into a tree for each client, in one dispatch."""
    size = len(jax.tree.leaves(tree)[0])
    return [jax.tree.map(lambda leaf, row=row: leaf[row], tree) for row in range(size)]


def _unstack(tree: PyTree, places: list[int]) -> list[PyTree]:
    if not jax.tree.leaves(tree):
        return [tree] * len(places)
    rows = _split(tree)
    return [rows[place] for place in places]
