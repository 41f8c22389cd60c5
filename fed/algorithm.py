"""A federated algorithm: one record of pure functions, each with a default that is FedAvg's.

The functions see one client and no client axis. An algorithm gives only those in which it differs:
`fed.algorithms` has examples of twenty to forty lines.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fed.aggregation import LogWeight, fedavg
from fed.protocols import FederationError, PyTree


class Server(NamedTuple):
    """The server's model, and the state that the algorithm keeps beside it."""

    parameters: PyTree
    state: PyTree


class Start(NamedTuple):
    """The beginning of a client's round.

    Attributes:
        parameters: the model that the client trains.
        optimizer_state: the state of `LocalTraining.optimizer`.
        memory: a pytree that the client's steps read and change; it lasts to the end of the round.
    """

    parameters: PyTree
    optimizer_state: PyTree
    memory: PyTree = ()


class LocalStep(NamedTuple):
    """A local step, between its gradient and its optimizer.

    Attributes:
        parameters: those of the client before the step.
        gradients: those of the objective at `parameters`.
        server: the round's model and the algorithm's state, the same for all clients.
        evaluate: parameters -> (gradients, sums) of the objective on this step's batch, with its key.
    """

    parameters: PyTree
    gradients: PyTree
    server: Server
    evaluate: Callable[[PyTree], tuple[PyTree, PyTree]]


class Trained(NamedTuple):
    """A client after its last step of a round.

    Attributes:
        parameters, optimizer_state, memory: at the end.
        server: the model that the client began with, and the algorithm's state.
        steps: local steps made, float32; at least 1 for a client that counts.
        rate: mean learning rate of these steps, float32.
        key: the client's own random key of this round.
    """

    parameters: PyTree
    optimizer_state: PyTree
    memory: PyTree
    server: Server
    steps: jax.Array
    rate: jax.Array
    key: jax.Array

    @property
    def update(self) -> PyTree:
        """Subtract the model of the round's beginning from that of its end."""
        return jax.tree.map(jnp.subtract, self.parameters, self.server.parameters)


class Combined(NamedTuple):
    """The messages of a round, combined.

    Attributes:
        message: the weighted mean of the messages, or the result of `Algorithm.combine`.
        clients: clients that counted, float32.
        population: all clients that there are, float32.
    """

    message: PyTree
    clients: jax.Array
    population: jax.Array


def array_bytes(tree: PyTree) -> int:
    """Count the bytes of the arrays of a tree, concrete or abstract."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def fresh_start(training: Any, server: Server, kept: PyTree) -> Start:
    """Begin with the server's model and a fresh optimizer."""
    del kept
    return Start(server.parameters, training.optimizer.init(server.parameters))


def plain_gradient(step: LocalStep, memory: PyTree) -> tuple[PyTree, PyTree]:
    """Descend along the objective's own gradient."""
    return step.gradients, memory


def send_update(trained: Trained) -> tuple[PyTree, PyTree]:
    """Send the change of the model, and keep nothing."""
    return trained.update, ()


def no_state(parameters: PyTree) -> PyTree:
    """Keep nothing on the server beside its model."""
    del parameters
    return ()


def apply_update(server: Server, combined: Combined) -> Server:
    """Add the combined update to the model."""
    return Server(jax.tree.map(jnp.add, server.parameters, combined.message), server.state)


class Algorithm(NamedTuple):
    """A federated algorithm. Without arguments it is FedAvg (McMahan et al. 2017).

    Attributes:
        server_init: parameters -> the state that the server keeps.
        client_init: (training, parameters) -> the state that a client keeps from round to round, before
            its first one; None for clients that keep nothing. The parameters are those that the run began
            with. Without it nothing grows with the population.
        broadcast: (server, key) -> the parameters that clients begin with; None sends the server's own.
        begin: (training, server, kept) -> Start. `server` has the parameters that were sent, and `kept` is
            the client's state, or () where clients keep nothing.
        gradient: (step, memory) -> (gradients for the optimizer, memory).
        message: trained -> (message, kept): the pytree that the client sends, and its state for its next
            round. A dict should name the change of the model "update", which the log reports on.
        log_weight: (loss, weight of the data) -> logarithm of the client's weight in the mean; both are
            float32 scalars, and the loss is the mean over the steps that the client's plan reports.
        combine: None for the weighted mean, which is accumulated client by client. Otherwise (messages,
            log weights) -> combined, with leaves [client, ...] of the whole cohort; clients with a log
            weight of -inf do not count, and their leaves are zero. All messages are then held at once.
        server_step: (server, combined) -> server. It is skipped in a round in which no client counted.
        bytes_down: shapes of the parameters -> bytes in which they cross to one client.
        bytes_up: shapes of a message -> bytes in which it crosses to the server.
    """

    server_init: Callable[[PyTree], PyTree] = no_state
    client_init: Callable[[Any, PyTree], PyTree] | None = None
    broadcast: Callable[[Server, jax.Array], PyTree] | None = None
    begin: Callable[[Any, Server, PyTree], Start] = fresh_start
    gradient: Callable[[LocalStep, PyTree], tuple[PyTree, PyTree]] = plain_gradient
    message: Callable[[Trained], tuple[PyTree, PyTree]] = send_update
    log_weight: LogWeight = fedavg
    combine: Callable[[PyTree, jax.Array], PyTree] | None = None
    server_step: Callable[[Server, Combined], Server] = apply_update
    bytes_down: Callable[[PyTree], int] = array_bytes
    bytes_up: Callable[[PyTree], int] = array_bytes


def check_range(name: str, value: float | int, holds: bool, words: str) -> None:
    """Refuse a setting that is out of its range.

    Args:
        name: of the setting.
        value: as given.
        holds: whether it is in its range.
        words: the range.

    Raises:
        FederationError: it is not.
    """
    if not holds:
        raise FederationError(f"{name} has to be {words}, got {value:g}")


def update_of(message: PyTree) -> PyTree:
    """Select the change of the model from a message: its entry "update", or all of it."""
    return message["update"] if isinstance(message, dict) and "update" in message else message


def optimizer_step(
    optimizer: optax.GradientTransformation, parameters: PyTree, state: PyTree, update: PyTree
) -> tuple[PyTree, PyTree]:
    """Step a server optimizer, whose gradient is the negative update: (parameters, state).

    With optax.sgd(1.0) the new parameters are the old ones plus the update.

    Args:
        optimizer: with its learning rate.
        parameters: the server's.
        state: from `optimizer.init(parameters)`, or from the last step.
        update: like the parameters.
    """
    gradient = jax.tree.map(jnp.negative, update)
    # optax's own arithmetic fails under strict dtype and rank promotion.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, state = optimizer.update(gradient, state, parameters)
    return jax.tree.map(jnp.add, parameters, updates), state
