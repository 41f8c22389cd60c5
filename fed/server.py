"""The server: global parameters and their optimizer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fed.protocols import Objective, PyTree


class ServerState(NamedTuple):
    """Everything a run needs to go on: checkpoints hold exactly this."""

    parameters: PyTree
    objective_state: PyTree
    optimizer_state: PyTree
    round_index: jax.Array  # int32, rounds finished


def init(objective: Objective, optimizer: optax.GradientTransformation, key: jax.Array) -> ServerState:
    """The state before the first round."""
    parameters, objective_state = objective.init(key)
    return ServerState(parameters, objective_state, optimizer.init(parameters), jnp.int32(0))


def step(
    optimizer: optax.GradientTransformation,
    server: ServerState,
    mean_update: PyTree,
    mean_state_change: PyTree,
) -> ServerState:
    """Apply the clients' mean update; its negative is the server optimizer's gradient.

    With optax.sgd(1.0) the new parameters are the weighted mean of the clients' parameters.
    """
    gradient = jax.tree.map(jnp.negative, mean_update)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, optimizer_state = optimizer.update(gradient, server.optimizer_state, server.parameters)
    return ServerState(
        jax.tree.map(jnp.add, server.parameters, updates),
        jax.tree.map(jnp.add, server.objective_state, mean_state_change),
        optimizer_state,
        server.round_index + 1,
    )
