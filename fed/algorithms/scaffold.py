"""SCAFFOLD: control variates correct local drift (Karimireddy et al. 2020, arXiv 1910.06378)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from fed import aggregation
from fed.algorithm import Algorithm, Combined, LocalStep, Server, Start, Trained, optimizer_step
from fed.protocols import PyTree


def scaffold(server_optimizer: optax.GradientTransformation | None = None) -> Algorithm:
    """Make SCAFFOLD (algorithm 1). A client's new variate is the mean of its local gradients.

    With local SGD at a constant rate this is the paper's option II, c_i - c + (x - y_i) / (K eta).
    All clients count alike. pfl 0.6.0 keeps variates of the opposite sign.

    Args:
        server_optimizer: gets the negative mean update; None adds the mean update (eta_g = 1).
    """
    optimizer = optax.sgd(1.0) if server_optimizer is None else server_optimizer

    def zeros(parameters: PyTree) -> PyTree:
        return jax.tree.map(jnp.zeros_like, parameters)

    def server_init(parameters: PyTree) -> PyTree:
        return {"optimizer": optimizer.init(parameters), "control": zeros(parameters)}

    def begin(training: Any, server: Server, control: PyTree) -> Start:
        x = server.parameters
        return Start(x, training.optimizer.init(x), {"control": control, "gradients": zeros(x)})

    def gradient(step: LocalStep, memory: PyTree) -> tuple[PyTree, PyTree]:
        c, c_i = step.server.state["control"], memory["control"]
        total = jax.tree.map(jnp.add, memory["gradients"], step.gradients)
        return jax.tree.map(lambda g, c_i, c: g - c_i + c, step.gradients, c_i, c), memory | {
            "gradients": total
        }

    def message(trained: Trained) -> tuple[PyTree, PyTree]:
        new = jax.tree.map(lambda total: total / trained.steps, trained.memory["gradients"])
        change = jax.tree.map(jnp.subtract, new, trained.memory["control"])
        return {"update": trained.update, "control": change}, new

    def server_step(server: Server, combined: Combined) -> Server:
        share = combined.clients / combined.population
        x, held = optimizer_step(
            optimizer, server.parameters, server.state["optimizer"], combined.message["update"]
        )
        control = jax.tree.map(
            lambda c, change: c + share * change, server.state["control"], combined.message["control"]
        )
        return Server(x, {"optimizer": held, "control": control})

    return Algorithm(
        server_init=server_init,
        client_init=lambda training, parameters: zeros(parameters),
        begin=begin,
        gradient=gradient,
        message=message,
        log_weight=aggregation.uniform,
        server_step=server_step,
    )
