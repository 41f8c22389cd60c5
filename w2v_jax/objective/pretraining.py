"""Self-supervised pre-training as an Objective: pure functions over parameters and batches."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from w2v_jax.batch import Batch, Sums, Total
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.model.binding import Parameters, bind
from w2v_jax.model.wav2vec2 import Wav2Vec2
from w2v_jax.objective import accumulation, losses
from w2v_jax.objective.pretraining_loss import (
    Draws,
    audio_seconds,
    contrast_of,
    diversity_weight,
    draw,
    loss_and_sums,
    training_noise,
)
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


def bind_model(config: ModelConfig) -> tuple[Callable, Callable]:
    """Build (init, apply) of the pre-training model."""
    return bind(lambda key: Wav2Vec2(config, key))


def pretraining_objective(config: ModelConfig) -> Objective:
    """Build the Objective of wav2vec 2.0 pre-training for a model configuration."""
    init_parameters, apply = bind_model(config)

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


def truncated(config: ModelConfig, batch: Batch) -> Batch:
    """Cut a batch's clips to their first `config.truncate_seconds` seconds, if that is set."""
    if config.truncate_seconds is None:
        return batch
    samples = round(config.truncate_seconds * SAMPLE_RATE_HZ)
    waveform = batch.waveform[:, :samples]
    return batch._replace(waveform=waveform, num_samples=jnp.minimum(batch.num_samples, waveform.shape[1]))


def shuffle_masked(
    context: Float[Array, "batch time dim"],
    mask: Bool[Array, "batch time"],
    keys: Key[Array, " batch"],
) -> Float[Array, "batch time dim"]:
    """Permute the context vectors of the masked frames among themselves, per utterance.

    This is the control of the contrastive accuracy: the accuracy that remains comes from what all frames of
    an utterance share, not from the frame's own context.
    """

    def shuffle(x, masked, key):
        scores = jax.random.uniform(key, masked.shape)
        source = jnp.argsort(jnp.where(masked, scores, jnp.inf), stable=True)
        target = jnp.argsort(~masked, stable=True)
        return x.at[target].set(x[source])

    return jax.vmap(shuffle)(context, mask, keys)


def summarise(sums: Sums) -> dict[str, float]:
    """Compute the means of all sums; histograms become perplexities over all their frames."""
    result = {}
    for name, (total, weight) in sums.items():
        total, weight = np.asarray(total, np.float64), float(np.asarray(weight))
        if name in ("code_counts", "probability_sums"):
            average = total / max(weight, 1.0)
            entropy = -(average * np.log(np.maximum(average, 1e-30))).sum(-1)
            label = "code_perplexity" if name == "code_counts" else "prob_perplexity"
            result[label] = float(np.exp(entropy).sum()) if weight else float("nan")
        elif name == "accuracy_moments":
            result["accuracy_standard_error"] = losses.ratio_standard_error(total)
        elif name == "audio_seconds":
            result[name] = float(total)
        else:
            result[name] = float(total) / weight if weight else float("nan")
    return result
