"""MIME-lite: clients step with the server's optimizer state (Karimireddy et al. 2021, arXiv 2008.03606)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from fed.algorithm import Algorithm, Combined, LocalStep, Server, Start, Trained, check_range
from fed.protocols import PyTree


def mime_lite(
    base: optax.GradientTransformation | None = None, server_learning_rate: float = 1.0
) -> Algorithm:
    """Make MIME-lite. `LocalTraining.optimizer` has to be plain SGD, `optax.identity()`.

    Every local step takes the direction that `base` gives from the round's optimizer state, which stays as
    it is. The server steps that state once, with the mean over clients of their gradients at the round's
    model, on the batches of their steps. A local step takes two gradients.

    Args:
        base: without its learning rate; None takes momentum of 0.9.
        server_learning_rate: factor of the mean update.
    """
    check_range("server_learning_rate", server_learning_rate, server_learning_rate > 0, "above 0")
    optimizer = optax.trace(0.9) if base is None else base

    def advance(gradients: PyTree, state: PyTree, parameters: PyTree) -> tuple[PyTree, PyTree]:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return optimizer.update(gradients, state, parameters)

    def begin(training: Any, server: Server, kept: PyTree) -> Start:
        x = server.parameters
        return Start(x, training.optimizer.init(x), jax.tree.map(jnp.zeros_like, x))

    def gradient(step: LocalStep, memory: PyTree) -> tuple[PyTree, PyTree]:
        there, _ = step.evaluate(step.server.parameters)
        direction, _ = advance(step.gradients, step.server.state, step.parameters)
        return direction, jax.tree.map(jnp.add, memory, there)

    def message(trained: Trained) -> tuple[PyTree, PyTree]:
        mean = jax.tree.map(lambda total: total / trained.steps, trained.memory)
        return {"update": trained.update, "gradients": mean}, ()

    def server_step(server: Server, combined: Combined) -> Server:
        _, state = advance(combined.message["gradients"], server.state, server.parameters)
        x = jax.tree.map(
            lambda x, update: x + server_learning_rate * update, server.parameters, combined.message["update"]
        )
        return Server(x, state)

    return Algorithm(
        server_init=optimizer.init, begin=begin, gradient=gradient, message=message, server_step=server_step
    )
