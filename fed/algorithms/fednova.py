"""FedNova: updates per local step are averaged (Wang et al. 2020, arXiv 2007.07481)."""

import jax
import optax

from fed.algorithm import Algorithm, Combined, Server, Trained, optimizer_step
from fed.protocols import PyTree


def fednova(server_optimizer: optax.GradientTransformation | None = None) -> Algorithm:
    """Make FedNova for local SGD without momentum, whose normaliser is the number of local steps.

    x <- x + (sum_i p_i tau_i) (sum_i p_i update_i / tau_i), p_i by the size of the data: clients that make
    more steps do not pull the model towards their own optimum. Under another local optimizer this
    normalises by steps alone.

    Args:
        server_optimizer: gets the negative combined update; None adds it.
    """
    optimizer = optax.sgd(1.0) if server_optimizer is None else server_optimizer

    def message(trained: Trained) -> tuple[PyTree, PyTree]:
        per_step = jax.tree.map(lambda update: update / trained.steps, trained.update)
        return {"update": per_step, "steps": trained.steps}, ()

    def server_step(server: Server, combined: Combined) -> Server:
        steps = combined.message["steps"]
        update = jax.tree.map(lambda mean: steps * mean, combined.message["update"])
        return Server(*optimizer_step(optimizer, *server, update))

    return Algorithm(server_init=optimizer.init, message=message, server_step=server_step)
