"""The configuration that a fine-tuning run begins with, and its first lines."""

from typing import Any

import jax
import numpy as np

from experiments.recognition.clients.labelled_clients import WITHHELD
from experiments.recognition.task import FineTuningTask
from experiments.report.units import by_reason
from w2v_jax.config import ModelConfig
from w2v_jax.errors import UserError
from w2v_jax.model.convolutions import form_for_clients


def model_of(settings: dict[str, Any], config: ModelConfig) -> ModelConfig:
    """Build the model configuration that a run computes with.

    Group normalisation runs over valid frames alone: a transcript must not depend on the other
    clips of its batch.
    """
    dropout = settings["dropout"]
    changes = {} if dropout is None else {"dropout": dropout, "activation_dropout": dropout}
    return config.replace(
        compute_dtype="bfloat16" if settings["precision"] == "bf16" else "float32",
        masked_group_norm=True,
        convolution_form=form_for_clients(1),
        **changes,
    )


def check_freeze(settings: dict[str, Any], model: ModelConfig) -> None:
    """Refuse to freeze convolutions that an encoder lacks."""
    frozen = settings["features"] == "encoder" and settings["freeze"] == "feature-encoder"
    if frozen and not model.conv_channels:
        raise UserError(
            "--freeze feature-encoder has no meaning for an encoder on log-mel input, which has no "
            "convolutions: leave it out"
        )


def described(run: Any, done: int) -> str:
    """Describe a `training_run.FineTuningRun` that continues after update `done`, or begins, in one line."""
    shapes = jax.eval_shape(run.task.objective.init, jax.random.key(0))[0]
    counts = {
        group: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(held))
        for group, held in shapes.items()
    }
    train = run.task.splits["train"]
    clients = "" if run.clients is None or not run.settings["local_steps"] else f", {run.clients.described()}"
    held = run.task.splits.get(WITHHELD)
    withheld = "" if held is None else f", {len(held.clips)} further clips withheld for --personalise"
    start = f", continuing after update {done}" if done else ""
    return (
        f"{run.settings['features']} from {run.settings['init']}, {counts['encoder']:,} parameters and "
        f"{counts['head']:,} in the head; {len(train.clips)} clips of {train.seconds / 60:.1f} min, "
        f"{run.steps_per_epoch} updates an epoch; "
        f"{run.task.described()}{clients}{withheld}{start}"
    )


def changed(task: FineTuningTask) -> str:
    """Count the clips of each split that were changed, by reason; empty if none was."""
    held = task.splits.items()
    return "; ".join(f"{by_reason(clips.changed)} in {split}" for split, clips in held if clips.changed)
