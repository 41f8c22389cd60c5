"""Self-supervised pre-training as an Objective: pure functions over parameters and batches."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from w2v_jax.batch import Batch, Sums, Total
from w2v_jax.config import ModelConfig
from w2v_jax.model.binding import Parameters, bind
from w2v_jax.model.wav2vec2 import Wav2Vec2
from w2v_jax.objective import accumulation, best_rq, losses
from w2v_jax.objective.masking import shuffle_masked
from w2v_jax.objective.objective import Objective
from w2v_jax.objective.pretraining_loss import (
    Draws,
    audio_seconds,
    contrast_of,
    diversity_weight,
    draw,
    loss_and_sums,
    training_noise,
    truncated,
)
from w2v_jax.objective.summary import summarise
from w2v_jax.randomness import Stream, utterance_keys

__all__ = [
    "Batch",
    "Draws",
    "Objective",
    "Parameters",
    "Sums",
    "Total",
    "bind",
    "bind_model",
    "draw",
    "loss_and_sums",
    "pretraining_objective",
    "shuffle_masked",
    "summarise",
]


def bind_model(config: ModelConfig) -> tuple[Callable, Callable]:
    """Build (init, apply) of the pre-training model of the configuration's objective."""
    return best_rq.bind_model(config) if config.objective == "best-rq" else _bind_wav2vec2(config)


def _bind_wav2vec2(config: ModelConfig) -> tuple[Callable, Callable]:
    return bind(lambda key: Wav2Vec2(config, key))


def pretraining_objective(config: ModelConfig) -> Objective:
    """Build the Objective of pre-training that a model configuration names."""
    if config.objective == "best-rq":
        return best_rq.best_rq_objective(config)
    return _wav2vec2_objective(config)


def _wav2vec2_objective(config: ModelConfig) -> Objective:
    init_parameters, apply = _bind_wav2vec2(config)

    def init(key):
        return init_parameters(key), {}

    def training_loss(parameters, state, batch: Batch, key, step):
        batch = truncated(config, batch)
        draws = draw(config, batch, key)
        noise = training_noise(config, batch, key, step)
        predictions, _ = apply(parameters, batch.waveform, batch.num_samples, draws.mask, **noise)
        loss, sums = loss_and_sums(config, predictions, draws, diversity_weight(config, step))
        return loss, sums | {"audio_seconds": audio_seconds(batch)}

    def value_and_grad(parameters, state, batch: Batch, key, step, loss_scale=1.0):
        if config.micro_batch is None:

            def scaled(parameters):
                loss, sums = training_loss(parameters, state, batch, key, step)
                return loss * loss_scale, sums

            gradients, sums = jax.grad(scaled, has_aux=True)(parameters)
            return gradients, state, sums
        batch = truncated(config, batch)
        gradients, sums = accumulation.value_and_grad(config, apply, parameters, batch, key, step, loss_scale)
        return gradients, state, sums | {"audio_seconds": audio_seconds(batch)}

    def descend(parameters, state, batch: Batch, key, step, rate):
        batch = truncated(config, batch)
        parameters, sums = accumulation.descend(config, apply, parameters, batch, key, step, rate)
        return parameters, state, sums | {"audio_seconds": audio_seconds(batch)}

    def evaluate(parameters, state, batch: Batch, key):
        draws = draw(config, batch, key)
        predictions, _ = apply(parameters, batch.waveform, batch.num_samples, draws.mask)
        _, sums = loss_and_sums(config, predictions, draws)
        correct = contrast_of(config, predictions, draws).correct
        shuffle_keys = utterance_keys(key, batch.utterance_id, Stream.SHUFFLE)
        shuffled = shuffle_masked(predictions.context, draws.mask, shuffle_keys)
        control = contrast_of(config, predictions._replace(context=shuffled), draws).correct
        chance = losses.chance_accuracy(predictions.quantized.codes, draws.negative_counts)
        masked_frames = draws.mask.sum().astype(jnp.float32)
        for name, values in (
            ("chance_accuracy", chance),
            ("shuffled_accuracy", control.astype(jnp.float32)),
        ):
            sums[name] = Total(losses.masked_mean(values, draws.mask) * masked_frames, masked_frames)
        sums["accuracy_moments"] = Total(losses.utterance_moments(correct, draws.mask), jnp.float32(1.0))
        return sums | {"audio_seconds": audio_seconds(batch)}

    return Objective(init, training_loss, value_and_grad, evaluate, summarise, descend)
