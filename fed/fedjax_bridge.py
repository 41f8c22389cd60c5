"""fedjax's interfaces: its FederatedData and samplers feed our rounds, and our rounds are offered
as a fedjax.FederatedAlgorithm. fedjax is imported lazily; nothing else of `fed` needs it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax

from fed import server, simulation
from fed.aggregation import LogWeight
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.keys import client_number
from fed.protocols import ClientPlan, PyTree
from fed.round import run_round
from fed.sampling import Sampler
from fed.server import ServerState

if TYPE_CHECKING:
    import fedjax

NUMBER = "number"

ToBatch = Callable[[dict[str, Any]], PyTree]


def client_name(client_id: Any) -> str:
    """fedjax's client ids are bytes; ours are strings."""
    return client_id.decode("utf-8", "surrogateescape") if isinstance(client_id, bytes) else str(client_id)


class FedjaxSource:
    """A ClientSource over a fedjax.FederatedData.

    Rows of a ClientDataset must have one shape: hold indices there for ragged audio and read in
    `to_batch`. Batches are fedjax's own: shuffled, repeated for `num_epochs`, all of `batch_size`.

    Args:
        data: whose clients are the population; ids of bytes become strings.
        batch_size: rows of a batch.
        num_epochs: over a client's rows in a round; the client's loss is that of the last one.
        seed: of the shuffling, with round and client.
        to_batch: columns of a batch, each [batch, ...] -> what the objective takes.
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
        self._ids = {client_name(client_id): client_id for client_id in data.client_ids()}
        self._batch_size, self._epochs, self._seed = batch_size, num_epochs, seed
        self._to_batch = to_batch

    def client_ids(self) -> list[str]:
        """The population."""
        return list(self._ids)

    def plan(self, client_id: str, round_index: int) -> ClientPlan:
        """Steps that make up the epochs; weighted by the number of examples."""
        size = self._data.client_size(self._ids[client_id])
        return _plan(size, self._batch_size, self._epochs)

    def client_batches(self, client_id: str, round_index: int) -> Iterator[PyTree]:
        """Batches shuffled by seed and round."""
        dataset = self._data.get_client(self._ids[client_id])
        plan = self.plan(client_id, round_index)
        seed = _shuffle_seed(self._seed, round_index, client_id)
        return _batches(dataset, self._batch_size, plan, seed, self._to_batch)


class _RoundSource:
    """The clients that fedjax hands to `apply`, as a ClientSource for one round."""

    def __init__(self, clients: Sequence[tuple], batch_size: int, epochs: int, seed: int, to_batch: ToBatch):
        self._datasets = {client_name(client_id): dataset for client_id, dataset, _ in clients}
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
    """A fedjax.FederatedData whose examples are read when a batch is asked for.

    It holds the numbers of the examples alone, so that a corpus need not fit into memory.

    Args:
        clients: client id -> numbers of its examples.
        read: numbers [example] -> columns, each [example, ...] of one shape for all calls.
    """
    import fedjax

    held = {name.encode(): {NUMBER: np.asarray(numbers, np.int64)} for name, numbers in clients.items()}
    lookup = fedjax.BatchPreprocessor([lambda examples: read(examples[NUMBER])])
    return fedjax.InMemoryFederatedData(held, preprocess_batch=lookup)


def sampler(fedjax_sampler: "fedjax.client_samplers.ClientSampler") -> Sampler:
    """A fedjax client sampler as ours. It must allow `set_round_num`, so that runs can resume.

    Its random keys are left aside: they depend on round and position, ours on seed, round, client
    and step.
    """

    def sample(round_index: int) -> list[str]:
        fedjax_sampler.set_round_num(round_index)
        return [client_name(client_id) for client_id, _, _ in fedjax_sampler.sample()]

    return sample


def federated_algorithm(
    training: LocalTraining,
    rule: LogWeight,
    server_optimizer: optax.GradientTransformation,
    layout: Layout,
    *,
    batch_size: int,
    steps_per_round: int,
    num_epochs: int = 1,
    seed: int = 0,
    to_batch: ToBatch = lambda examples: examples,
) -> "fedjax.FederatedAlgorithm":
    """Our vectorised rounds as a fedjax.FederatedAlgorithm.

    `init(key)` gives a ServerState, a pytree; `apply(state, clients)` trains the clients that a
    fedjax sampler drew and returns the new state and diagnostics by client id: `loss`, `weight`
    and `accepted`. Schedules advance by `steps_per_round`, best the longest client's steps.

    Args:
        training: how a client trains.
        rule: how updates are weighted; weights of data are numbers of examples.
        server_optimizer: applied to the negative mean update.
        layout: lanes and chunk.
        batch_size, num_epochs, seed, to_batch: as of `FedjaxSource`.
        steps_per_round: local steps by which schedules advance.
    """
    import fedjax

    engine = None

    def init(key: jax.Array) -> ServerState:
        return server.init(training.objective, server_optimizer, key)

    def apply(state: ServerState, clients: Sequence[tuple]):
        nonlocal engine
        clients = list(clients)
        source = _RoundSource(clients, batch_size, num_epochs, seed, to_batch)
        names = source.client_ids()
        round_index = int(state.round_index)
        if engine is None:
            batch = next(source.client_batches(names[0], round_index))
            engine = simulation.build_engine(
                training, rule, server_optimizer, layout, state, batch, steps_per_round
            )
        outcome = run_round(
            engine,
            # The programs consume their state, and a fedjax caller may keep the old one.
            jax.tree.map(lambda leaf: leaf.copy(), state),
            source,
            names,
            seed=seed,
            round_index=round_index,
            first_step=round_index * steps_per_round,
        )
        result = simulation.to_result(outcome, round_index)
        original = {client_name(client_id): client_id for client_id, _, _ in clients}
        diagnostics = {
            original[name]: {"loss": loss, "weight": weight, "accepted": name not in result.skipped}
            for name, loss, weight in zip(result.clients, result.losses, result.weights, strict=True)
        }
        return result.server, diagnostics

    # fedjax's own dataclass decorator hides the constructor from type checkers.
    make: Any = fedjax.FederatedAlgorithm
    return make(init, apply)
