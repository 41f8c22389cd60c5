"""q-FedAvg: clients with a higher loss count for more (Li et al. 2020, arXiv 1905.10497)."""

from typing import Any

import jax
import jax.numpy as jnp

from fed import aggregation
from fed.algorithm import Algorithm, Combined, LocalStep, Server, Start, Trained, check_range
from fed.protocols import PyTree


def qfedavg(q: float = 1.0) -> Algorithm:
    """Make q-FedAvg (algorithm 2); with q = 0 all clients count alike.

    A client's loss F is that of the round's model on the batches of its steps, so that a local step takes
    two gradients. 1 / L is the mean local learning rate of each client; Flower has one constant for all.

    Args:
        q: not negative; more is fairer.
    """

    check_range("q", q, q >= 0, "not negative")

    def begin(training: Any, server: Server, kept: PyTree) -> Start:
        nothing = (jnp.float32(0.0), jnp.float32(0.0))
        return Start(server.parameters, training.optimizer.init(server.parameters), nothing)

    def gradient(step: LocalStep, memory: PyTree) -> tuple[PyTree, PyTree]:
        _, sums = step.evaluate(step.server.parameters)
        return step.gradients, jax.tree.map(jnp.add, memory, sums["loss"])

    def message(trained: Trained) -> tuple[PyTree, PyTree]:
        total, weight = trained.memory
        loss = total / jnp.where(weight > 0, weight, 1.0) + 1e-10  # as in the authors' program
        lipschitz = 1.0 / trained.rate
        square = sum(jnp.square(lipschitz * leaf).sum() for leaf in jax.tree.leaves(trained.update))
        scaled = jax.tree.map(lambda leaf: loss**q * lipschitz * leaf, trained.update)
        return {"update": scaled, "scale": q * loss ** (q - 1.0) * square + lipschitz * loss**q}, ()

    def server_step(server: Server, combined: Combined) -> Server:
        scale = combined.message["scale"]
        x = jax.tree.map(lambda x, mean: x + mean / scale, server.parameters, combined.message["update"])
        return Server(x, server.state)

    return Algorithm(
        begin=begin,
        gradient=gradient,
        message=message,
        log_weight=aggregation.uniform,
        server_step=server_step,
    )
