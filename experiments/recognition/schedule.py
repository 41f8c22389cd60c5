"""Learning rates of fine-tuning."""

from typing import Any

import numpy as np

from experiments.recognition.recipes import FineTuningRecipe
from w2v_jax.recognition.training import NewBob, tri_stage

ADAM_HEAD_RATE = 1e-3


def learning_rates(
    settings: dict[str, Any], recipe: FineTuningRecipe, update: int, updates: int, newbob: NewBob
) -> dict[str, np.float32]:
    """Compute the learning rates of `encoder` and `head` for one update.

    Args:
        settings: the settings of the run; what they leave open comes from the recipe.
        recipe: the recipe of the model's size.
        update: counted from 0.
        updates: length of the run.
        newbob: its state after the validations so far.
    """
    encoder, head = settings["encoder_learning_rate"], settings["head_learning_rate"]
    if encoder is None:
        encoder = recipe.encoder_learning_rate
    if head is None:
        adadelta = settings["head_optimizer"] == "adadelta"
        head = recipe.head_learning_rate if adadelta else ADAM_HEAD_RATE
    if settings["freeze"] == "encoder" or update < settings["head_only_updates"]:
        encoder = 0.0
    if settings["schedule"] == "newbob":
        scale = newbob.scales
    else:
        scale = dict.fromkeys(("encoder", "head"), tri_stage(update, updates))
    return {"encoder": np.float32(encoder * scale["encoder"]), "head": np.float32(head * scale["head"])}
