"""fedjax's interfaces: its FederatedData and samplers feed our rounds, which are also offered as a
fedjax.FederatedAlgorithm. fedjax is imported lazily; nothing else in `fed` needs it.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from fed import server, simulation
from fed.algorithm import Algorithm
from fed.client import LocalTraining
from fed.cohort import Layout, RoundSettings
from fed.keys import client_number
from fed.protocols import ClientPlan, FederationError, PyTree
from fed.round import run_round
from fed.sampling import Sampler
from fed.server import ServerState

if TYPE_CHECKING:
    import fedjax

NUMBER = "number"

ToBatch = Callable[[dict[str, Any]], PyTree]


def client_name(client_id: Any) -> str:
    """Convert fedjax's client id, which is bytes, to a string."""
    return client_id.decode("utf-8", "surrogateescape") if isinstance(client_id, bytes) else str(client_id)


class FedjaxSource:
    """A ClientSource over a fedjax.FederatedData.

    Rows of a ClientDataset must have one shape: for audio of unlike lengths, let the rows be indices and
    read the audio in `to_batch`. Batches are fedjax's own: shuffled, repeated for `num_epochs`, all of
    `batch_size`. A client without examples makes no step and changes nothing.

    Args:
        data: its clients are the population; their ids, which are bytes, become strings.
        batch_size: rows of a batch.
        num_epochs: passes over a client's rows in a round; the client's loss is that of the last one.
        seed: the seed of the shuffling, together with round and client.
        to_batch: columns of a batch, each [batch, ...] -> the objective's batch.

    Raises:
        FederationError: the ids of two clients become the same string.
    """

    def __init__(
        self,
        data: "fedjax.FederatedData",
        *,
        batch_size: int,
        num_epochs: int = 1,
        seed: int = 0,
        to_batch: ToBatch = lambda examples: examples,
    ):
        self._data = data
        self._ids: dict[str, Any] = {}
        for client_id in data.client_ids():
            name = client_name(client_id)
            if name in self._ids:
                raise FederationError(f"clients {self._ids[name]!r} and {client_id!r} have the same name")
            self._ids[name] = client_id
        self._batch_size, self._epochs, self._seed = batch_size, num_epochs, seed
        self._to_batch = to_batch

    def client_ids(self) -> list[str]:
        """The population."""
        return list(self._ids)

    def plan(self, client_id: str, round_index: int) -> ClientPlan:
        """Plan the steps that make up the epochs; the weight is the number of examples."""
        size = self._data.client_size(self._ids[client_id])
        return _plan(size, self._batch_size, self._epochs)

    def client_batches(self, client_id: str, round_index: int) -> Iterator[PyTree]:
        """Read batches, shuffled by seed, round and client."""
        dataset = self._data.get_client(self._ids[client_id])
        plan = self.plan(client_id, round_index)
        seed = _shuffle_seed(self._seed, round_index, client_id)
        return _batches(dataset, self._batch_size, plan, seed, self._to_batch)


class _RoundSource:
    """The clients that fedjax hands to `apply`, as a ClientSource for one round.

    A client that is there again has a name of its own each time, and so its own shuffling and keys.
    """

    def __init__(self, clients: Sequence[tuple], batch_size: int, epochs: int, seed: int, to_batch: ToBatch):
        names, times = [], Counter[str]()
        for client_id, _, _ in clients:
            name = client_name(client_id)
            names.append(f"{name}\0{times[name]}" if times[name] else name)
            times[name] += 1
        self._datasets = {name: dataset for name, (_, dataset, _) in zip(names, clients, strict=True)}
        self._batch_size, self._epochs, self._seed, self._to_batch = batch_size, epochs, seed, to_batch

    def client_ids(self) -> list[str]:
        return list(self._datasets)

    def plan(self, client_id: str, round_index: int) -> ClientPlan:
        return _plan(len(self._datasets[client_id]), self._batch_size, self._epochs)

    def client_batches(self, client_id: str, round_index: int) -> Iterator[PyTree]:
        plan = self.plan(client_id, round_index)
        seed = _shuffle_seed(self._seed, round_index, client_id)
        return _batches(self._datasets[client_id], self._batch_size, plan, seed, self._to_batch)


def _shuffle_seed(seed: int, round_index: int, client_id: str) -> int:
    sequence = np.random.SeedSequence((seed, round_index, client_number(client_id)))
    return int(sequence.generate_state(1)[0])


def _plan(size: int, batch_size: int, epochs: int) -> ClientPlan:
    epoch = math.ceil(size / batch_size)
    return ClientPlan(epoch * epochs, epoch * (epochs - 1), float(size))


def _batches(
    dataset: Any, batch_size: int, plan: ClientPlan, seed: int, to_batch: ToBatch
) -> Iterator[PyTree]:
    view = dataset.shuffle_repeat_batch(
        batch_size=batch_size, num_epochs=None, num_steps=plan.num_steps, seed=seed
    )
    return (to_batch(examples) for examples in view)


def lazy_federated_data(
    clients: Mapping[str, Sequence[int]], read: Callable[[np.ndarray], dict[str, np.ndarray]]
) -> "fedjax.FederatedData":
    """Make a fedjax.FederatedData that reads examples when a batch is asked for.

    It holds only the numbers of the examples, so that a corpus need not fit into memory.

    Args:
        clients: client id -> numbers of its examples.
        read: numbers [example] -> columns, each [example, ...] of one shape for all calls.
    """
    import fedjax

    held = {name.encode(): {NUMBER: np.asarray(numbers, np.int64)} for name, numbers in clients.items()}
    lookup = fedjax.BatchPreprocessor([lambda examples: read(examples[NUMBER])])
    return fedjax.InMemoryFederatedData(held, preprocess_batch=lookup)


def sampler(fedjax_sampler: "fedjax.client_samplers.ClientSampler") -> Sampler:
    """Turn a fedjax client sampler into ours.

    Its random keys are not used: they depend on round and position, ours on seed, round, client and
    step.

    Raises:
        FederationError: it does not allow `set_round_num`, which runs need in order to resume.
    """
    try:
        fedjax_sampler.set_round_num(0)
    except NotImplementedError as error:
        raise FederationError(
            f"{type(fedjax_sampler).__name__} cannot be set to a round, which runs need in order to resume: "
            "use fedjax's UniformGetClientSampler"
        ) from error

    def sample(round_index: int) -> list[str]:
        fedjax_sampler.set_round_num(round_index)
        return [client_name(client_id) for client_id, _, _ in fedjax_sampler.sample()]

    return sample


def federated_algorithm(
    training: LocalTraining,
    algorithm: Algorithm,
    layout: Layout,
    *,
    batch_size: int,
    steps_per_round: int,
    num_epochs: int = 1,
    seed: int = 0,
    to_batch: ToBatch = lambda examples: examples,
) -> "fedjax.FederatedAlgorithm":
    """Offer our vectorised rounds as a fedjax.FederatedAlgorithm.

    `init(key)` gives a ServerState, a pytree; `apply(state, clients)` trains the clients that a
    fedjax sampler drew and returns the new state and diagnostics by client id: `loss`, `weight`
    and `accepted`. A client without examples is not accepted and changes nothing. A client that is given
    twice trains and counts twice, and its diagnostics are those of the last time, as in fedjax.

    Args:
        training: how a client trains.
        algorithm: ours; the weight of a client's data is its number of examples. It has to be one whose
            clients keep nothing, as fedjax has no place for their state and no size of the population.
        layout: lanes and chunk.
        batch_size, num_epochs, seed, to_batch: as for `FedjaxSource`.
        steps_per_round: local steps by which schedules advance in a round, best the longest client's.

    Raises:
        FederationError: clients of the algorithm keep a state.
    """
    import fedjax

    engine, settings = None, RoundSettings(training, algorithm, layout)
    if algorithm.client_init is not None:
        raise FederationError("fedjax has no place for states of clients: use fed.simulation")

    def init(key: jax.Array) -> ServerState:
        return server.init(training.objective, algorithm, key)

    def apply(state: ServerState, clients: Sequence[tuple]):
        nonlocal engine
        clients = list(clients)
        source = _RoundSource(clients, batch_size, num_epochs, seed, to_batch)
        names = source.client_ids()
        original = dict(zip(names, (client_id for client_id, _, _ in clients), strict=True))
        round_index = int(state.round_index)
        # The programs consume their state, and a fedjax caller may keep the old one.
        copied = jax.tree.map(lambda leaf: leaf.copy(), state)
        batch = simulation.first_batch(source, names, round_index)
        if batch is None:
            return copied._replace(round_index=copied.round_index + 1), _diagnostics(original, None)
        if engine is None:
            engine = simulation.build_engine(settings, state, batch, steps_per_round)
        first_step = round_index * steps_per_round
        outcome = run_round(
            engine, copied, source, names, seed=seed, round_index=round_index, first_step=first_step
        )
        result = simulation.to_result(outcome, round_index)
        return result.server, _diagnostics(original, result)

    # fedjax's own dataclass decorator hides the constructor from type checkers.
    make: Any = fedjax.FederatedAlgorithm
    return make(init, apply)


def _diagnostics(original: dict[str, Any], result: simulation.RoundResult | None) -> dict[Any, dict]:
    """Report on each client by fedjax's id; without a result, no client had any example."""
    found: dict[str, dict] = {}
    if result is not None:
        found = {
            name: {"loss": loss, "weight": weight, "accepted": name not in result.skipped}
            for name, loss, weight in zip(result.clients, result.losses, result.weights, strict=True)
        }
    nothing = {"loss": 0.0, "weight": 0.0, "accepted": False}
    return {client_id: found.get(name, dict(nothing)) for name, client_id in original.items()}
