"""What federated rounds ask of a model and of the data; both sides only need the right shape."""

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
        num_steps: local updates.
        loss_from_step: first step of the window over which the client's loss is taken: of its last local
            epoch (Gao et al. 2022), or 0 for all steps of the round, so that clients whose epochs differ in
            length are compared over the same steps.
        weight: the client's weight under FedAvg, e.g. seconds of audio or examples; positive.
    """

    num_steps: int
    loss_from_step: int
    weight: float


@runtime_checkable
class ClientSource(Protocol):
    """Where the data of clients come from."""

    def client_ids(self) -> Sequence[str]:
        """The population."""
        ...

    def plan(self, client_id: str, round_index: int) -> ClientPlan:
        """How many steps a client makes in a round, and its weight."""
        ...

    def client_batches(self, client_id: str, round_index: int) -> Iterator[PyTree]:
        """The batches of a client's round: NumPy pytrees of one and the same shape."""
        ...


class Resident(NamedTuple):
    """Data that stay on the devices for a whole run; a source's batches then only say which of them.

    A source that has them carries them as its attribute `resident`. What is worth it: data of a population
    that fits, and models so small that moving batches takes longer than training on them.

    Attributes:
        data: a pytree of arrays, the same on every device of the run.
        read: (data, batch of a source) -> batch of the objective; runs inside the step.
    """

    data: PyTree
    read: Callable[[PyTree, PyTree], PyTree]


class FederationError(Exception):
    """A federated setting that cannot work; the message says what would."""
