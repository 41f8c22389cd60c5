"""Plain training without clients, by the same local steps as a client's, for comparison."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fed import client
from fed.algorithm import Algorithm
from fed.client import Block, ClientState, LocalTraining
from fed.keys import client_number, round_key
from fed.protocols import PyTree


class CentralState(NamedTuple):
    """All that a centralised run needs to continue."""

    parameters: PyTree
    objective_state: PyTree
    optimizer_state: PyTree
    round_index: jax.Array  # int32: number of finished stretches


class StretchResult(NamedTuple):
    """A finished stretch of training, which sees as much audio as a federated round."""

    round_index: int
    state: CentralState
    sums: PyTree
    steps: int
    update_norm: float
    finite: bool


def init(training: LocalTraining, key: jax.Array) -> CentralState:
    """Make the state before training."""
    parameters, objective_state = training.objective.init(key)
    return CentralState(parameters, objective_state, training.optimizer.init(parameters), jnp.int32(0))


def run(
    training: LocalTraining,
    state: CentralState,
    batches: Callable[[int], Iterator[PyTree]],
    *,
    sums: PyTree,
    num_stretches: int,
    steps_per_stretch: int,
    seed: int,
    block_steps: int = 16,
) -> Iterator[StretchResult]:
    """Train one stretch after the other; the optimizer's state carries over.

    Args:
        training: the objective, the optimizer and the learning rate.
        state: from `init` or a checkpoint.
        batches: stretch index -> its batches.
        sums: abstract sums of one step.
        num_stretches: length of the whole run, including stretches before this call.
        steps_per_stretch: steps of each stretch.
        seed: the seed of the keys.
        block_steps: steps per call of the jitted program.

    Yields:
        One result per stretch.
    """
    number = np.uint32(client_number("centralised"))

    @jax.jit
    def run_block(state: ClientState, block: Block, key, first_step):
        return client.train_block(training, Algorithm(), state, block, number, key, first_step)

    for index in range(int(state.round_index), num_stretches):
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sums)
        zero = jnp.zeros((), jnp.float32)
        carried = ClientState(
            *(state.parameters, state.optimizer_state, state.objective_state),
            *(zeros, (zero, zero), (), (zero, zero)),
        )
        stream, done = batches(index), 0
        while done < steps_per_stretch:
            taken = [next(stream) for _ in range(min(block_steps, steps_per_stretch - done))]
            padded = taken + [taken[-1]] * (block_steps - len(taken))
            valid = np.arange(block_steps) < len(taken)
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *padded)
            local_step = np.arange(done, done + block_steps, dtype=np.int32)
            block = Block._make((stacked, valid, valid, local_step))
            carried = run_block(carried, block, round_key(seed, index), np.int32(index * steps_per_stretch))
            done += len(taken)
        norm = float(optax.tree.norm(jax.tree.map(jnp.subtract, carried.parameters, state.parameters)))
        state = CentralState(
            carried.parameters, carried.objective_state, carried.optimizer_state, jnp.int32(index + 1)
        )
        finite = bool(np.isfinite(norm))
        yield StretchResult(index + 1, state, jax.device_get(carried.sums), steps_per_stretch, norm, finite)
