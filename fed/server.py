"""The server: its state, its optimizers, and its step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fed.algorithm import Algorithm, Combined, Server
from fed.protocols import Objective, PyTree

ADAPTIVITY = 1e-3  # tau of Reddi et al. 2021: added to the root of the second moment


def scale_by_yogi(b1: float, b2: float, tau: float) -> optax.GradientTransformation:
    """Scale by Yogi as in algorithm 2 of Reddi et al. 2021 (arXiv 2003.00295).

    The first moment starts at 0 and the second at tau^2; neither is corrected for its bias. A parameter
    whose gradients are all zero does not move. `optax.scale_by_yogi` starts both moments at 1e-6 and
    corrects them, which moves such parameters.

    Args:
        b1: decay of the first moment.
        b2: decay of the second moment.
        tau: added to the root of the second moment.
    """

    # The state is that of optax.scale_by_yogi, so that checkpoints keep their form.
    def init(params: PyTree) -> optax.ScaleByAdamState:
        zeros = optax.tree.zeros_like(params)
        return optax.ScaleByAdamState(jnp.int32(0), zeros, optax.tree.full_like(params, tau**2))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, optax.ScaleByAdamState]:
        del params
        first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        second = jax.tree.map(
            lambda v, g: v - (1 - b2) * jnp.square(g) * jnp.sign(v - jnp.square(g)), state.nu, updates
        )
        scaled = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + tau), first, second)
        return scaled, optax.ScaleByAdamState(state.count + 1, first, second)

    return optax.GradientTransformation(init, update)


# By the name of the federated algorithm; the adaptive three are those of Reddi et al. 2021, algorithm 2.
# Two of them differ from the paper: optax's Adam starts its second moment at 0 and corrects both moments
# for their bias, and optax's Adagrad divides by sqrt(v + tau^2) in place of sqrt(v) + tau.
OPTIMIZERS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "fedavg": optax.sgd,
    "fedavgm": lambda rate: optax.sgd(rate, momentum=0.9),
    "fedadam": lambda rate: optax.adam(rate, b1=0.9, b2=0.99, eps=ADAPTIVITY),
    "fedyogi": lambda rate: optax.chain(
        scale_by_yogi(b1=0.9, b2=0.99, tau=ADAPTIVITY), optax.scale_by_learning_rate(rate)
    ),
    "fedadagrad": lambda rate: optax.adagrad(
        rate, initial_accumulator_value=ADAPTIVITY**2, eps=ADAPTIVITY**2
    ),
}


class ServerState(NamedTuple):
    """All that a run needs to continue, but for what clients keep; checkpoints hold exactly this."""

    parameters: PyTree
    objective_state: PyTree
    optimizer_state: PyTree  # `Algorithm.server_init`'s: of its server optimizer, and whatever else it keeps
    round_index: jax.Array  # int32, number of finished rounds


def init(objective: Objective, algorithm: Algorithm, key: jax.Array) -> ServerState:
    """Make the state before the first round.

    Args:
        objective: its `init` makes parameters and state.
        algorithm: the one that the simulation runs.
        key: a scalar jax.random.key.
    """
    parameters, objective_state = objective.init(key)
    return ServerState(parameters, objective_state, algorithm.server_init(parameters), jnp.int32(0))


def step(
    algorithm: Algorithm, server: ServerState, combined: Combined, mean_state_change: PyTree
) -> ServerState:
    """Apply a round's combined messages, and the mean change of the objective's state."""
    new = algorithm.server_step(Server(server.parameters, server.optimizer_state), combined)
    return ServerState(
        new.parameters,
        jax.tree.map(jnp.add, server.objective_state, mean_state_change),
        new.state,
        server.round_index + 1,
    )
