"""Algorithms whose server takes a weighted mean of the clients' updates."""

from collections.abc import Callable

import jax
import optax

from fed import aggregation
from fed.aggregation import LogWeight
from fed.algorithm import Algorithm, Combined, LocalStep, Server, check_range, optimizer_step, update_of
from fed.protocols import PyTree


def server_step(optimizer: optax.GradientTransformation) -> Callable[[Server, Combined], Server]:
    """Make the step of a server whose optimizer gets the negative combined update as its gradient."""

    def step(server: Server, combined: Combined) -> Server:
        return Server(*optimizer_step(optimizer, *server, update_of(combined.message)))

    return step


def averaging(
    rule: LogWeight = aggregation.fedavg, server_optimizer: optax.GradientTransformation | None = None
) -> Algorithm:
    """Average updates by a rule, and let a server optimizer apply the mean (FedOpt, arXiv 2003.00295).

    Args:
        rule: logarithm of a client's weight, such as `aggregation.loss_weighted()`.
        server_optimizer: such as one of `server.OPTIMIZERS`; None takes the mean of the clients' models.
    """
    optimizer = optax.sgd(1.0) if server_optimizer is None else server_optimizer
    return Algorithm(server_init=optimizer.init, log_weight=rule, server_step=server_step(optimizer))


def fedprox(
    mu: float = 0.01,
    rule: LogWeight = aggregation.fedavg,
    server_optimizer: optax.GradientTransformation | None = None,
) -> Algorithm:
    """Pull every client towards the round's model (Li et al. 2020, arXiv 1812.06127).

    Every local gradient gains mu x (parameters - the round's parameters), the gradient of mu / 2 x their
    squared distance; losses are reported without it.

    Args:
        mu: strength of the pull, not negative.
        rule, server_optimizer: as for `averaging`.
    """

    check_range("mu", mu, mu >= 0, "not negative")

    def gradient(step: LocalStep, memory: PyTree) -> tuple[PyTree, PyTree]:
        pulled = jax.tree.map(
            lambda g, x, start: g + mu * (x - start),
            *(step.gradients, step.parameters, step.server.parameters),
        )
        return pulled, memory

    return averaging(rule, server_optimizer)._replace(gradient=gradient)
