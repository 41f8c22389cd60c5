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

    Clients come in chunks in the order given, and leave in it; no more than a chunk's data and states
    are held. A client with fewer batches than another of its chunk waits, its state unchanged, and
    gets no results for steps that it did not make. Batches of one step that differ in shape between clients
    (a smaller last one) run shape by shape.

    Args:
        chunk: clients side by side. Convolutions become grouped ones under vmap, which are slow on CPU:
            see docs/decisions/0012.

    Raises:
        FederationError: a chunk below 1.
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
    """What fedjax's algorithms call with the shared input and the clients."""

    def masked_step(state: PyTree, batch: PyTree, active: jax.Array) -> tuple[PyTree, PyTree]:
        new, result = client_step(state, batch)
        return jax.tree.map(lambda after, before: jnp.where(active, after, before), new, state), result

    def start(shared: PyTree, inputs: PyTree) -> PyTree:
        # Copies, so that steps can take the state over. Without the size, no inputs would be no clients.
        return jax.tree.map(jnp.copy, jax.vmap(client_init, (None, 0), axis_size=chunk)(shared, inputs))

    start = jax.jit(start)
    step = jax.jit(jax.vmap(client_step, axis_size=chunk), donate_argnums=0)
    some_step = jax.jit(jax.vmap(masked_step, axis_size=chunk), donate_argnums=0)
    final = jax.jit(jax.vmap(client_final, (None, 0), axis_size=chunk), donate_argnums=1)

    def run(
        shared_input: PyTree, clients: Iterable[tuple[Any, Iterable[PyTree], PyTree]]
    ) -> Iterator[tuple[Any, PyTree, list[PyTree]]]:
        for members in _chunks(clients, chunk):
            names, batches, inputs = zip(*members, strict=True)
            streams = [iter(of_client) for of_client in batches]
            state = start(shared_input, _stack(_padded(inputs, chunk)))
            results: list[list[PyTree]] = [[] for _ in names]
            while alive := [
                (place, b) for place, s in enumerate(streams) if (b := next(s, None)) is not None
            ]:
                for places, stacked in _by_shape(alive, chunk):
                    if len(places) == len(names):
                        state, result = step(state, stacked)
                    else:
                        active = np.zeros(chunk, bool)
                        active[places] = True
                        state, result = some_step(state, stacked, active)
                    for place, of_client in zip(places, _unstack(result, places), strict=True):
                        results[place].append(of_client)
            outputs = _unstack(final(shared_input, state), list(range(len(names))))
            yield from zip(names, outputs, results, strict=True)

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
    """As many rows as a chunk has: the first one again, so that one program serves all chunks."""
    return [*rows, *[rows[0]] * (size - len(rows))]


def _stack(rows: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: _stack_leaves(leaves), *rows)


def _stack_leaves(leaves: tuple[Any, ...]) -> Any:
    if all(isinstance(leaf, np.ndarray | np.generic) for leaf in leaves):
        return np.stack(leaves)
    return jnp.stack(leaves)


def _by_shape(alive: list[tuple[int, PyTree]], chunk: int) -> Iterator[tuple[list[int], PyTree]]:
    """(places, batches [chunk, ...]) of the clients whose batches have one shape."""
    groups: dict[Any, list[tuple[int, PyTree]]] = {}
    for place, batch in alive:
        leaves, structure = jax.tree.flatten(batch)
        shape = (structure, *((np.shape(leaf), np.result_type(leaf)) for leaf in leaves))
        groups.setdefault(shape, []).append((place, batch))
    for members in groups.values():
        rows = [members[0][1]] * chunk
        for place, batch in members:
            rows[place] = batch
        yield [place for place, _ in members], _stack(rows)


@jax.jit
def _split(tree: PyTree) -> list[PyTree]:
    """Leaves [client, ...] as a tree for each client, in one dispatch."""
    size = len(jax.tree.leaves(tree)[0])
    return [jax.tree.map(lambda leaf, row=row: leaf[row], tree) for row in range(size)]


def _unstack(tree: PyTree, places: list[int]) -> list[PyTree]:
    if not jax.tree.leaves(tree):
        return [tree] * len(places)
    rows = _split(tree)
    return [rows[place] for place in places]
