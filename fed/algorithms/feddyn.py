"""FedDyn: each client's objective is regularised so that all agree (Acar et al. 2021, arXiv 2111.04263)."""

from typing import Any

import jax
import jax.numpy as jnp

from fed import aggregation
from fed.algorithm import Algorithm, Combined, LocalStep, Server, Start, Trained, check_range
from fed.protocols import PyTree


def feddyn(alpha: float = 0.01) -> Algorithm:
    """Make FedDyn (algorithm 1); all clients count alike.

    Args:
        alpha: strength of the regularisation, above 0.
    """

    check_range("alpha", alpha, alpha > 0, "above 0")

    def zeros(parameters: PyTree) -> PyTree:
        return jax.tree.map(jnp.zeros_like, parameters)

    def begin(training: Any, server: Server, kept: PyTree) -> Start:
        return Start(server.parameters, training.optimizer.init(server.parameters), kept)

    def gradient(step: LocalStep, memory: PyTree) -> tuple[PyTree, PyTree]:
        pulled = jax.tree.map(
            lambda g, own, x, start: g - own + alpha * (x - start),
            *(step.gradients, memory, step.parameters, step.server.parameters),
        )
        return pulled, memory

    def message(trained: Trained) -> tuple[PyTree, PyTree]:
        kept = jax.tree.map(lambda own, update: own - alpha * update, trained.memory, trained.update)
        return trained.update, kept

    def server_step(server: Server, combined: Combined) -> Server:
        share = combined.clients / combined.population
        h = jax.tree.map(lambda h, update: h - alpha * share * update, server.state, combined.message)
        x = jax.tree.map(lambda x, update, h: x + update - h / alpha, server.parameters, combined.message, h)
        return Server(x, h)

    return Algorithm(
        server_init=zeros,
        client_init=lambda training, parameters: zeros(parameters),
        begin=begin,
        gradient=gradient,
        message=message,
        log_weight=aggregation.uniform,
        server_step=server_step,
    )
