"""`objective`, `source` and `sampler` of the README's example of `fed`: two clients of noise, a step each."""

from collections.abc import Iterator

import numpy as np

from fed import sampling
from fed.protocols import ClientPlan
from w2v_jax.batch import Batch
from w2v_jax.config import TINY
from w2v_jax.objective.pretraining import pretraining_objective


class Noise:
    """Two clients whose speech is white noise."""

    def client_ids(self) -> list[str]:
        return ["first", "second"]

    def plan(self, client_id: str, round_index: int) -> ClientPlan:
        return ClientPlan(num_steps=1, loss_from_step=0, weight=1.0)

    def client_batches(self, client_id: str, round_index: int) -> Iterator[Batch]:
        rng = np.random.default_rng((round_index, len(client_id)))
        waveform = 0.1 * rng.standard_normal((1, 9600)).astype(np.float32)
        yield Batch(waveform, np.array([9600], np.int32), np.array([round_index], np.uint32))


NAMES = {
    "objective": pretraining_objective(TINY),
    "source": Noise(),
    "sampler": sampling.everyone(Noise().client_ids()),
}
