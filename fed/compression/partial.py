"""Train a part of a model, so that less crosses: chosen parameters, or low-rank changes of them.

`train_only` and `lora` wrap an objective, and `WithFrozen` wraps the source of its batches:

    part = train_only(objective, ["layers/attention/*"])
    trained, frozen = part.split(parameters, key)
    state = server.init(part, algorithm, key)._replace(parameters=trained)
    simulation.Simulation(LocalTraining(part, ...), algorithm, WithFrozen(source, frozen), ...)
    parameters = part.merge(state.parameters, frozen)  # of the last round

The trained parameters are those of the server. The frozen ones stay on the devices, one copy for all
clients of a device.
"""

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fed.protocols import ClientPlan, ClientSource, FederationError, Objective, PyTree, Resident

Chosen = Callable[[str], bool] | Sequence[str]


class Held(NamedTuple):
    """A batch of a partly trained objective: the frozen parameters, and the batch of the whole one."""

    frozen: PyTree
    batch: PyTree


class Part(NamedTuple):
    """An `Objective` over the trained part of another one's parameters.

    In both parts, None stands in the place of arrays that the part lacks.

    A freeze schedule is a run for each of its stages: merge the parameters after the last round of a
    stage, and split them by the next one's `Part`. The algorithm and its clients then begin afresh.

    Attributes:
        init: key -> (trained, state).
        value_and_grad: as the objective's, over the trained part and a `Held` batch.
        split: (parameters, key) -> (trained, frozen); the key is of values that are new in `trained`.
        merge: (trained, frozen) -> parameters of the whole objective.
    """

    init: Callable
    value_and_grad: Callable
    split: Callable[[PyTree, jax.Array], tuple[PyTree, PyTree]]
    merge: Callable[[PyTree, PyTree], PyTree]


def train_only(objective: Objective, chosen: Chosen) -> Part:
    """Train some parameters and freeze the others (Yang et al. 2021, arXiv 2110.05607).

    Args:
        objective: over all parameters.
        chosen: tells by its path, such as "layers/attention/query/kernel", whether an array is trained; or
            patterns of such paths, of which * matches any text and also slashes.

    `Part.split` raises FederationError if a pattern matches nothing, or if nothing is chosen.
    """

    def split(parameters: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
        del key
        trains = _trains(parameters, chosen)
        trained = jax.tree.map(lambda yes, leaf: leaf if yes else None, trains, parameters)
        return trained, jax.tree.map(lambda yes, leaf: None if yes else leaf, trains, parameters)

    def merge(trained: PyTree, frozen: PyTree) -> PyTree:
        return jax.tree.map(
            lambda own, other: other if own is None else own, trained, frozen, is_leaf=lambda x: x is None
        )

    return _part(objective, split, merge)


def lora(objective: Objective, chosen: Chosen, rank: int, alpha: float | None = None) -> Part:
    """Train low-rank changes of kernels and freeze everything else (Hu et al. 2021, arXiv 2106.09685).

    A kernel W [in, out] becomes W + alpha / rank x A B, with A [in, rank] normal of variance 1 / in and B
    [rank, out] zero at first. Stacked kernels [layers, in, out] have A and B for each layer.

    A server that averages messages averages A and B each for itself. The mean of products is not the
    product of means, so this differs from averaging the clients' changes of W. Every step computes the
    whole W of each client: this saves bytes and optimizer state, and no other memory.

    Args:
        objective: over all parameters.
        chosen: kernels, as of `train_only`.
        rank: columns of A; at least 1, and at most the smaller side of each kernel.
        alpha: None takes the rank, which makes the factor one.

    `Part.split` also raises FederationError if a chosen array has not 2 or 3 axes, or has a side below rank.
    """
    scale = (rank if alpha is None else alpha) / rank if rank else 0.0

    def split(parameters: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
        found, structure = jax.tree_util.tree_flatten_with_path(parameters)
        trains = jax.tree.leaves(_trains(parameters, chosen))
        adapters: list[Any] = []
        for place, ((path, kernel), yes) in enumerate(zip(found, trains, strict=True)):
            if yes:
                _check_kernel(_name(path), kernel.shape, rank)
                *layers, inputs, outputs = kernel.shape
                own = jax.random.fold_in(key, place)
                a = jax.random.normal(own, (*layers, inputs, rank), kernel.dtype) / inputs**0.5
                adapters.append({"a": a, "b": jnp.zeros((*layers, rank, outputs), kernel.dtype)})
            else:
                adapters.append(None)
        return jax.tree.unflatten(structure, adapters), parameters

    def merge(trained: PyTree, frozen: PyTree) -> PyTree:
        def one(kernel: Any, adapter: PyTree) -> Any:
            if adapter is None:
                return kernel
            return kernel + scale * jnp.matmul(adapter["a"], adapter["b"], precision="highest")

        return jax.tree.map(one, frozen, trained)

    return _part(objective, split, merge)


class WithFrozen:
    """A source whose batches come with frozen parameters, which stay on the devices.

    Its `resident` data replace those of the source, and hold them. Other attributes are the source's.
    """

    def __init__(self, source: ClientSource, frozen: PyTree):
        self.source = source
        inner: Resident | None = getattr(source, "resident", None)

        def read(data: PyTree, batch: PyTree) -> Held:
            own, frozen = data
            return Held(frozen, batch if inner is None else inner.read(own, batch))

        self.resident = Resident((() if inner is None else inner.data, frozen), read)

    def client_ids(self) -> Sequence[str]:
        """List the population."""
        return self.source.client_ids()

    def plan(self, client_id: str, round_index: int) -> ClientPlan:
        """Tell how many steps a client makes in a round, and its weight."""
        return self.source.plan(client_id, round_index)

    def client_batches(self, client_id: str, round_index: int) -> Iterator[PyTree]:
        """Read the batches of the source; the devices pair them with the frozen parameters."""
        return self.source.client_batches(client_id, round_index)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["source"], name)


def _part(objective: Objective, split: Callable, merge: Callable) -> Part:
    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        parameters, state = objective.init(key)
        return split(parameters, jax.random.fold_in(key, 1))[0], state

    def value_and_grad(trained, state, batch: Held, key, step) -> tuple[PyTree, PyTree, PyTree]:
        # Gradients of frozen arrays go nowhere, and the compiler leaves them out.
        whole, pull_back = jax.vjp(lambda own: merge(own, batch.frozen), trained)
        gradients, state, sums = objective.value_and_grad(whole, state, batch.batch, key, step)
        return pull_back(gradients)[0], state, sums

    return Part(init, value_and_grad, split, merge)


def _trains(parameters: PyTree, chosen: Chosen) -> PyTree:
    """Decide for every array whether it is trained: a tree of bools."""
    found, structure = jax.tree_util.tree_flatten_with_path(parameters)
    names = [_name(path) for path, _ in found]
    patterns = () if callable(chosen) else tuple(chosen)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise FederationError(
                f"no parameter matches {pattern!r}: their paths are such as {', '.join(names[:3])}"
            )

    def trains(name: str) -> bool:
        return chosen(name) if callable(chosen) else any(fnmatchcase(name, each) for each in patterns)

    decided = [bool(trains(name)) for name in names]
    if not any(decided):
        raise FederationError(f"none of {len(names)} parameters is chosen for training")
    return jax.tree.unflatten(structure, decided)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _check_kernel(name: str, shape: tuple[int, ...], rank: int) -> None:
    if len(shape) not in (2, 3):
        raise FederationError(
            f"{name} has shape {list(shape)}: low-rank changes need kernels [in, out] or [layers, in, out]"
        )
    if not 1 <= rank <= min(shape[-2:]):
        raise FederationError(f"the rank of {name} must be between 1 and {min(shape[-2:])}, got {rank}")
