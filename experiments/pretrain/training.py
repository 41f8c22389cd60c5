"""A run's settings -> its model and its local training, as they are computed on the devices at hand."""

import dataclasses

from experiments.costs.rate_share import RateShare, peak_rate
from experiments.costs.step.training_step import abstract_batch
from experiments.pretrain.settings import Settings
from fed import cohort
from fed.client import LocalTraining
from fed.cohort import Layout
from w2v_jax import memory_methods, optim
from w2v_jax.batch import Batch
from w2v_jax.config import ModelConfig
from w2v_jax.model.convolutions import form_for_clients
from w2v_jax.objective.pretraining import Objective, pretraining_objective


def choose_layout(settings: Settings) -> Layout:
    """Choose how a round's clients are laid out on the devices."""
    if settings.centralised:
        return Layout(1, 1)
    return cohort.choose_layout(
        settings.clients_per_round, lanes=settings.lanes, chunk=settings.chunk, shards=settings.shards
    )


def model_config(settings: Settings, chunk: int) -> ModelConfig:
    """Make the configuration of the model as the run computes it.

    Args:
        chunk: clients that are vmapped on one device.
    """
    held = ModelConfig.from_dict(dict(settings.model_config))
    return memory_methods.configured(held, settings.method).replace(
        compute_dtype="bfloat16" if settings.precision == "bf16" else "float32",
        masked_group_norm=settings.masked_group_norm,
        convolution_form=form_for_clients(chunk),
    )


def rate_share(settings: Settings, layout: Layout) -> tuple[RateShare, Batch]:
    """Make the counter of the share of the devices' rate, and the shapes of a local step's batch.

    An exact memory method counts as the plain step.
    """
    exact = memory_methods.is_exact(settings.method)
    plain = dataclasses.replace(settings, method=memory_methods.PLAIN) if exact else settings
    config = model_config(plain, chunk=1)
    peak = peak_rate(settings.precision, layout.lanes * layout.shards)
    batch = abstract_batch(settings.batch_size, settings.crop_samples)
    return RateShare(lambda: pretraining_objective(config), peak), batch


def optimizer_config(settings: Settings, steps_per_round: int) -> optim.OptimizerConfig:
    """Make the settings of the clients' optimizer, with a schedule that spans all rounds."""
    total = settings.rounds * steps_per_round
    return optim.OptimizerConfig(
        name=settings.optimizer,
        learning_rate=settings.learning_rate,
        warmup_steps=max(1, round(settings.warmup_share * total)),
        total_steps=total,
        final_share=0.1,
        clip_norm=settings.clip_norm,
        weight_decay=settings.weight_decay,
        **memory_methods.optimizer_changes(settings.method),
    )


def local_training(settings: Settings, objective: Objective, steps_per_round: int) -> LocalTraining:
    """Make the clients' optimizer and its learning rate."""
    config = optimizer_config(settings, steps_per_round)
    return LocalTraining(objective, optim.make_optimizer(config), optim.make_learning_rate(config))
