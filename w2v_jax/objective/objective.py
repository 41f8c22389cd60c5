"""The record by which the rest of the project uses a model and its loss."""

from collections.abc import Callable
from typing import NamedTuple


class Objective(NamedTuple):
    """A model and its loss, as the rest of the project uses them.

    Attributes:
        init: key -> (parameters, state). Gradients do not train `state`.
        training_loss: (parameters, state, batch, key, step) -> (mean loss of the batch, sums).
        value_and_grad: (parameters, state, batch, key, step) -> (gradients, state, sums).
            Gradients are those of the batch's mean loss; `sums["loss"]` is its total and weight. Pre-training
            takes one more argument, `loss_scale`, which multiplies the gradients (for fp16).
        evaluate: (parameters, state, batch, key) -> sums, without noise or dropout.
        summarise: sums -> plain numbers for a log.
        descend: (parameters, state, batch, key, step, rate) -> (parameters, state, sums): a step of plain
            gradient descent that never holds all gradients; None where the objective has no such step.
    """

    init: Callable
    training_loss: Callable
    value_and_grad: Callable
    evaluate: Callable
    summarise: Callable
    descend: Callable | None = None
