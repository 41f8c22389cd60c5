"""The server: global parameters and their optimizer."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fed.protocols import Objective, PyTree

ADAPTIVITY = 1e-3  # tau of Reddi et al. 2021: what is added to the root of the second moment

# By the name of the federated algorithm. The adaptive three follow Reddi et al. 2021, algorithm 2, with
# optax's bias correction in Adam and Yogi, which the paper leaves out; optax's Adagrad divides by
# sqrt(v + tau^2) where the paper has sqrt(v) + tau.
OPTIMIZERS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "fedavg": optax.sgd,
    "fedavgm": lambda rate: optax.sgd(rate, momentum=0.9),
    "fedadam": lambda rate: optax.adam(rate, b1=0.9, b2=0.99, eps=ADAPTIVITY),
    "fedyogi": lambda rate: optax.yogi(rate, b1=0.9, b2=0.99, eps=ADAPTIVITY),
    "fedadagrad": lambda rate: optax.adagrad(
        rate, initial_accumulator_value=ADAPTIVITY**2, eps=ADAPTIVITY**2
    ),
}


class ServerState(NamedTuple):
    """Everything a run needs to go on: checkpoints hold exactly this."""

    parameters: PyTree
    objective_state: PyTree
    optimizer_state: PyTree
    round_index: jax.Array  # int32, rounds finished


def init(objective: Objective, optimizer: optax.GradientTransformation, key: jax.Array) -> ServerState:
    """The state before the first round.

    Args:
        objective: whose `init` makes parameters and state.
        optimizer: the server's, e.g. one of OPTIMIZERS; the same that the simulation is given.
        key: a scalar jax.random.key.
    """
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
