"""The local update of one client: a scan over its steps. There is no client axis here."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fed.algorithm import Algorithm, LocalStep, Server
from fed.keys import ArrayLike, step_key
from fed.protocols import Objective, PyTree

LearningRate = Callable[[jax.Array], jax.Array]


NOTHING_SENT = Server((), ())


class ClientState(NamedTuple):
    """The state that a client carries from step to step; it is dropped when the round ends."""

    parameters: PyTree
    optimizer_state: PyTree
    objective_state: PyTree
    sums: PyTree  # over all local steps
    last_loss: tuple[jax.Array, jax.Array]  # (total, weight) over the reported steps
    memory: PyTree  # of the algorithm
    done: tuple[jax.Array, jax.Array]  # float32: local steps, sum of their learning rates


class Block(NamedTuple):
    """Consecutive local steps, stacked. A step that is not valid changes nothing."""

    batches: PyTree  # leaves [step, ...]
    valid: jax.Array  # bool [step]
    reported: jax.Array  # bool [step]: counts for the loss that rules of aggregation see
    local_step: jax.Array  # int32 [step]


class LocalTraining(NamedTuple):
    """A client's training: an optax transformation without its learning rate, and the schedule.

    The optimizer starts afresh each round unless the algorithm keeps its state; the learning rate follows
    the global step, so that schedules run on across rounds.
    """

    objective: Objective
    optimizer: optax.GradientTransformation
    learning_rate: LearningRate


def start(
    training: LocalTraining,
    algorithm: Algorithm,
    server: Server,
    objective_state: PyTree,
    kept: PyTree,
    sums: PyTree,
) -> ClientState:
    """Make a client's state at the beginning of its round.

    Args:
        training: how the client trains.
        algorithm: decides what the client begins with.
        server: the model that was sent, and the algorithm's state on the server.
        objective_state: the server's.
        kept: the client's state from its last round; () where clients keep nothing.
        sums: abstract or concrete sums, for their shapes.
    """
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sums)
    begun = algorithm.begin(training, server, kept)
    nothing = (jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))
    return ClientState(
        begun.parameters, begun.optimizer_state, objective_state, zeros, nothing, begun.memory, nothing
    )


def train_block(
    training: LocalTraining,
    algorithm: Algorithm,
    client: ClientState,
    block: Block,
    client_number: ArrayLike,
    key: jax.Array,
    first_step: ArrayLike,
    server: Server = NOTHING_SENT,
    read: Callable[[PyTree], PyTree] = lambda batch: batch,
) -> ClientState:
    """Run one block of local steps.

    Args:
        training: how the client trains.
        algorithm: decides along which gradient it descends.
        client: its state before the block.
        block: batches and flags of the steps.
        client_number: uint32 identity, for the keys.
        key: the round's key.
        first_step: global step of the round's first local step, for schedules.
        server: the model that was sent, and the algorithm's state; only some algorithms read them.
        read: a block's batch -> the objective's batch.
    """

    def update(client: ClientState, inputs: Block) -> ClientState:
        step = jnp.asarray(first_step) + inputs.local_step
        batch, own_key = read(inputs.batches), step_key(key, client_number, inputs.local_step)

        def evaluate(parameters: PyTree) -> tuple[PyTree, PyTree]:
            there, _, found = training.objective.value_and_grad(
                parameters, client.objective_state, batch, own_key, step
            )
            return there, found

        gradients, objective_state, sums = training.objective.value_and_grad(
            client.parameters, client.objective_state, batch, own_key, step
        )
        gradients, memory = algorithm.gradient(
            LocalStep(client.parameters, gradients, server, evaluate), client.memory
        )
        # optax's own arithmetic fails under strict dtype and rank promotion.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, optimizer_state = training.optimizer.update(
                gradients, client.optimizer_state, client.parameters
            )
        rate = training.learning_rate(step)
        parameters = jax.tree.map(lambda p, u: p + -rate * u, client.parameters, updates)
        total, weight = sums["loss"]
        counted = inputs.reported.astype(jnp.float32)
        last_loss = (client.last_loss[0] + counted * total, client.last_loss[1] + counted * weight)
        sums = jax.tree.map(jnp.add, client.sums, sums)
        steps, rates = client.done
        done = (steps + 1.0, rates + rate)
        return ClientState(parameters, optimizer_state, objective_state, sums, last_loss, memory, done)

    def step(client: ClientState, inputs: Block) -> tuple[ClientState, None]:
        # A real branch skips padded steps; under vmap it becomes a select.
        return jax.lax.cond(inputs.valid, update, lambda c, _: c, client, inputs), None

    return jax.lax.scan(step, client, block)[0]
