"""Requirements of federated rounds on a model and on data; any object with these members will do."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

PyTree = Any


@runtime_checkable
class Objective(Protocol):
    """A record of pure functions over parameters and batches.

    init: key -> (parameters, state).
    value_and_grad: (parameters, state, batch, key, step) -> (gradients, state, sums), where `sums`
        maps names to (total, weight) pairs and holds at least "loss".
    """

    @property
    def init(self) -> Callable: ...
    @property
    def value_and_grad(self) -> Callable: ...


class ClientPlan(NamedTuple):
    """A client's work in one round, known before its data are read.

    Attributes:
        num_steps: local updates; 0 for a client that has nothing to train on.
        loss_from_step: first step of the window over which the client's loss is taken: of its last local
            epoch (Gao et al. 2022), or 0 for all steps of the round, so that clients whose epochs differ in
            length are compared over the same steps.
        weight: the client's weight under FedAvg, such as seconds of audio or examples; positive if there
            are steps.
    """

    num_steps: int
    loss_from_step: int
    weight: float


@runtime_checkable
class ClientSource(Protocol):
    """A source of the clients' data."""

    def client_ids(self) -> Sequence[str]:
        """List the population."""
        ...

    def plan(self, client_id: str, round_index: int) -> ClientPlan:
        """Tell how many steps a client makes in a round, and its weight."""
        ...

    def client_batches(self, client_id: str, round_index: int) -> Iterator[PyTree]:
        """Read the batches of a client's round: NumPy pytrees of the same shape."""
        ...


class Resident(NamedTuple):
    """Data that stay on the devices for a whole run; batches then only select a part of them.

    A source has them as its attribute `resident`. They pay off if a population's data fit on a device and
    the model is so small that moving batches takes longer than training on them.

    Attributes:
        data: a pytree of arrays, the same on every device of the run.
        read: (data, batch of the source) -> batch of the objective; it runs inside the step.
    """

    data: PyTree
    read: Callable[[PyTree, PyTree], PyTree]


class FederationError(Exception):
    """A federated setting cannot work; the message says which one would."""
