"""DiLoCo: an outer step with Nesterov momentum after long local training (arXiv 2311.08105)."""

from typing import Any

import optax

from fed import aggregation
from fed.algorithm import Algorithm, Server, Start, Trained, check_range
from fed.algorithms.averaging import averaging
from fed.protocols import PyTree


def diloco(rate: float = 0.7, momentum: float = 0.9, keep_optimizer: bool = True) -> Algorithm:
    """Make DiLoCo. Its inner optimizer is `LocalTraining.optimizer`: AdamW in the paper, Muon in MuLoCo
    (arXiv 2505.23725), which is not shipped here. All clients count alike.

    Args:
        rate: of the outer optimizer.
        momentum: Nesterov's, of the outer optimizer.
        keep_optimizer: a client keeps the state of its inner optimizer from round to round. Without it
            clients keep nothing, as in Photon (arXiv 2411.02908).
    """
    check_range("rate", rate, rate > 0, "above 0")
    check_range("momentum", momentum, 0 <= momentum < 1, "at least 0 and below 1")
    held = averaging(aggregation.uniform, optax.sgd(rate, momentum=momentum, nesterov=True))
    if not keep_optimizer:
        return held

    def begin(training: Any, server: Server, kept: PyTree) -> Start:
        return Start(server.parameters, kept)

    def message(trained: Trained) -> tuple[PyTree, PyTree]:
        return trained.update, trained.optimizer_state

    return held._replace(
        client_init=lambda training, parameters: training.optimizer.init(parameters),
        begin=begin,
        message=message,
    )
