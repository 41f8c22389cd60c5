"""Clients with batches of noise, for benchmarks whose audio does not matter."""

from collections.abc import Iterator

import numpy as np

from fed.protocols import ClientPlan
from w2v_jax.batch import Batch
from w2v_jax.config import SAMPLE_RATE_HZ


class NoiseClients:
    """A population of clients with equal work: a source of batches for the federated engine.

    Args:
        clients: size of the population.
        steps: batches of each client in a round.
        batch: rows of a batch.
        seconds: length of a row.
        resident: make the batches once and give the same ones every round. Otherwise they are made when they
            are asked for.
    """

    def __init__(self, clients: int, *, steps: int, batch: int, seconds: float, resident: bool = False):
        self._ids = [f"client{number:06d}" for number in range(clients)]
        self._shape = (steps, batch, round(seconds * SAMPLE_RATE_HZ))
        self._resident = {name: list(self._batches(name, 0)) for name in self._ids} if resident else None

    def client_ids(self) -> list[str]:
        """Return the names of all clients."""
        return self._ids

    def plan(self, client_id: str, round_index: int) -> ClientPlan:
        """Plan the same work for every client."""
        return ClientPlan(self._shape[0], 0, 1.0)

    def client_batches(self, client_id: str, round_index: int) -> Iterator[Batch]:
        """Give the batches of a client in a round."""
        if self._resident is not None:
            return iter(self._resident[client_id])
        return self._batches(client_id, round_index)

    def _batches(self, client_id: str, round_index: int) -> Iterator[Batch]:
        steps, rows, samples = self._shape
        for step in range(steps):
            rng = np.random.default_rng((int(client_id.removeprefix("client")), round_index, step))
            waveform = rng.standard_normal((rows, samples), np.float32) * np.float32(0.1)
            utterances = np.arange(rows, dtype=np.uint32) + np.uint32(rows * step)
            yield Batch._make((waveform, np.full(rows, samples, np.int32), utterances))
