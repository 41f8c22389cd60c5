"""Learning rates of fine-tuning."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.recognition.recipes import FineTuningRecipe
from fed.client import LocalTraining
from w2v_jax.objective.objective import Objective
from w2v_jax.recognition.training import NewBob, make_optimizer, tri_stage

ADAM_HEAD_RATE = 1e-3
GROUPS = ("encoder", "head")


def peak_rates(settings: dict[str, Any], recipe: FineTuningRecipe) -> dict[str, float]:
    """Find the peak learning rates of `encoder` and `head`; that of a frozen encoder is 0.

    Args:
        settings: the settings of the run; what they leave open comes from the recipe.
        recipe: the recipe of the model's size.
    """
    encoder, head = settings["encoder_learning_rate"], settings["head_learning_rate"]
    if encoder is None:
        encoder = recipe.encoder_learning_rate
    if head is None:
        adadelta = settings["head_optimizer"] == "adadelta"
        head = recipe.head_learning_rate if adadelta else ADAM_HEAD_RATE
    return {"encoder": 0.0 if settings["freeze"] == "encoder" else encoder, "head": head}


def learning_rates(
    settings: dict[str, Any], recipe: FineTuningRecipe, update: int, updates: int, newbob: NewBob
) -> dict[str, np.float32]:
    """Compute the learning rates of `encoder` and `head` for one update.

    Args:
        settings, recipe: as of `peak_rates`.
        update: counted from 0.
        updates: length of the run.
        newbob: its state after the validations so far.
    """
    peaks = peak_rates(settings, recipe)
    if update < settings["head_only_updates"]:
        peaks["encoder"] = 0.0
    if settings["schedule"] == "newbob":
        scale = newbob.scales
    else:
        scale = dict.fromkeys(GROUPS, tri_stage(update, updates))
    return {group: np.float32(peaks[group] * scale[group]) for group in GROUPS}


def local_training(
    settings: dict[str, Any], recipe: FineTuningRecipe, objective: Objective, updates: int
) -> LocalTraining:
    """Make the local training of a client: the optimizer and the tri-stage schedule of central training.

    The peak rates of the two groups are in the optimizer, and the schedule is the learning rate, by the
    client's local steps of all rounds. While the head alone is trained, the encoder's gradient is zero.

    Args:
        settings, recipe: as of `peak_rates`.
        objective: of the task.
        updates: local steps of the whole run.
    """
    peaks = peak_rates(settings, recipe)
    optimizer = optax.chain(
        make_optimizer(settings["head_optimizer"], settings["clip_norm"]),
        optax.partition(
            {group: optax.scale(peaks[group]) for group in GROUPS}, {group: group for group in GROUPS}
        ),
    )
    shares = jnp.array([tri_stage(update, updates) for update in range(updates)], jnp.float32)
    trained = _head_first(objective, settings["head_only_updates"])
    return LocalTraining(trained, optimizer, lambda step: shares[jnp.minimum(step, updates - 1)])


def _head_first(objective: Objective, updates: int) -> Objective:
    """Give the encoder no gradient in the first updates."""
    if not updates:
        return objective

    def value_and_grad(parameters: Any, state: Any, batch: Any, key: Any, step: Any) -> tuple[Any, Any, Any]:
        gradients, state, sums = objective.value_and_grad(parameters, state, batch, key, step)
        encoder = jax.tree.map(
            lambda g: jnp.where(step < updates, jnp.zeros_like(g), g), gradients["encoder"]
        )
        return {**gradients, "encoder": encoder}, state, sums

    return objective._replace(value_and_grad=value_and_grad)
