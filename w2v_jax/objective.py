"""Self-supervised pre-training as an Objective: pure functions over parameters and batches.

The only file, with the layer stack in context.py, that splits and merges NNX modules.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, UInt

from w2v_jax import losses
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.features import frame_lengths
from w2v_jax.masking import span_mask
from w2v_jax.model import DropoutKeys, Predictions, Wav2Vec2
from w2v_jax.negatives import count_negatives, sample_negatives
from w2v_jax.quantizer import gumbel_noise, gumbel_temperature
from w2v_jax.randomness import Stream, utterance_keys

Parameters = dict[str, Any]


class Batch(NamedTuple):
    """One batch of utterances. A row with no samples is padding and changes nothing."""

    waveform: Float[Array, "batch sample"]
    num_samples: Int[Array, " batch"]
    utterance_id: UInt[Array, " batch"]


class Total(NamedTuple):
    """A sum and the weight it was summed over: adds up over batches, micro-batches and clients."""

    total: Float[Array, "*shape"]
    weight: Float[Array, ""]


Sums = dict[str, Total]


class Objective(NamedTuple):
    """All that the rest of the project sees of a model and its loss.

    Attributes:
        init: key -> (parameters, state). `state` is what is not trained by gradients.
        training_loss: (parameters, state, batch, key, step) -> (mean loss of the batch, sums).
        value_and_grad: (parameters, state, batch, key, step) -> (gradients, state, sums).
            Gradients are of the batch's mean loss; `sums["loss"]` is its total and weight.
        evaluate: (parameters, state, batch, key) -> sums, without noise or dropout.
        summarise: sums -> plain numbers for a log.
    """

    init: Callable
    training_loss: Callable
    value_and_grad: Callable
    evaluate: Callable
    summarise: Callable


class Draws(NamedTuple):
    """Everything random about one forward pass of the losses."""

    mask: Bool[Array, "batch time"]
    negative_counts: Int[Array, "batch time time"]


def bind(make: Callable[[Key[Array, ""]], nnx.Module]) -> tuple[Callable, Callable]:
    """(init, apply) of a module with parameters alone, which become a plain nested dict of arrays.

    `init(key)` makes the parameters; `apply(parameters, *args, **kwargs)` is the module's `__call__`.
    """
    template = nnx.eval_shape(lambda: make(jax.random.key(0)))
    definition, abstract = nnx.split(template)

    def init(key: Key[Array, ""]) -> Parameters:
        return nnx.to_pure_dict(nnx.state(make(key)))

    def apply(parameters: Parameters, *args, **kwargs):
        state = jax.tree.map(lambda leaf: leaf, abstract)
        nnx.replace_by_pure_dict(state, parameters)
        return nnx.merge(definition, state)(*args, **kwargs)

    return init, apply


def bind_model(config: ModelConfig) -> tuple[Callable, Callable]:
    """(init, apply) of the pre-training model."""
    return bind(lambda key: Wav2Vec2(config, key))


def draw(config: ModelConfig, batch: Batch, key: Key[Array, ""]) -> Draws:
    """The span mask and the distractors of a batch."""
    num_frames = frame_lengths(batch.num_samples, config)
    mask = span_mask(
        utterance_keys(key, batch.utterance_id, Stream.MASK),
        num_frames,
        config.num_frames(batch.waveform.shape[1]),
        probability=config.mask_probability,
        span=config.mask_span,
        min_spans=config.mask_min_spans,
    )
    negative_keys = utterance_keys(key, batch.utterance_id, Stream.NEGATIVES)
    indices = sample_negatives(negative_keys, mask, config.num_negatives)
    return Draws(mask, count_negatives(indices, mask))


def contrast_of(config: ModelConfig, predictions: Predictions, draws: Draws) -> losses.Contrast:
    """The contrastive task's result for every frame of a batch."""
    return losses.contrastive(
        losses.cosine_similarity(predictions.context, predictions.targets),
        predictions.quantized.codes,
        draws.negative_counts,
        config.contrastive_temperature,
    )


def loss_and_sums(
    config: ModelConfig,
    predictions: Predictions,
    draws: Draws,
    diversity_weight: Float[Array, ""] | float | None = None,
) -> tuple[Float[Array, ""], Sums]:
    """Loss per masked frame of a batch and its sums.

    contrastive + diversity_weight x diversity + feature_penalty_weight x penalty, where fairseq
    multiplies the last two by the number of masked frames and divides the whole by it once. A
    batch without a masked frame has loss and gradient zero. `diversity_weight` is the
    configuration's unless given.
    """
    if diversity_weight is None:
        diversity_weight = config.diversity_weight
    mask = draws.mask
    masked_frames = mask.sum().astype(jnp.float32)
    contrast = contrast_of(config, predictions, draws)
    contrastive = losses.masked_mean(contrast.loss, mask)
    average = losses.masked_mean(predictions.quantized.probabilities, mask)
    some = (masked_frames > 0).astype(jnp.float32)
    diversity = losses.diversity(average) * some
    penalty = losses.masked_mean(jnp.square(predictions.features).mean(-1), predictions.valid) * some
    loss = contrastive + diversity_weight * diversity + config.feature_penalty_weight * penalty
    choice = jax.nn.one_hot(predictions.quantized.codes, config.codebook_entries, dtype=jnp.float32)
    share = mask.astype(jnp.float32)[..., None, None]

    def per_frame(mean):
        return Total(mean * masked_frames, masked_frames)

    sums = {
        "loss": per_frame(loss),
        "contrastive": per_frame(contrastive),
        "diversity": per_frame(diversity),
        "feature_penalty": per_frame(penalty),
        "accuracy": per_frame(losses.masked_mean(contrast.correct.astype(jnp.float32), mask)),
        "masked_share": Total(masked_frames, predictions.valid.sum().astype(jnp.float32)),
        "code_counts": Total((choice * share).sum((0, 1)), masked_frames),
        "probability_sums": Total((predictions.quantized.probabilities * share).sum((0, 1)), masked_frames),
    }
    return loss, jax.lax.stop_gradient(sums)


def diversity_weight(config: ModelConfig, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """The diversity loss's weight at a global update: it may rise from zero, quadratically."""
    rise = (jnp.asarray(step, jnp.float32) + 1.0) / max(config.diversity_warmup_updates, 1)
    return config.diversity_weight * jnp.square(jnp.minimum(rise, 1.0))


def pretraining_objective(config: ModelConfig) -> Objective:
    """wav2vec 2.0 pre-training of one model configuration as an Objective."""
    init_parameters, apply = bind_model(config)

    def init(key):
        return init_parameters(key), {}

    def training_loss(parameters, state, batch: Batch, key, step):
        draws = draw(config, batch, key)
        frames = draws.mask.shape[1]
        noise_keys = utterance_keys(key, batch.utterance_id, Stream.GUMBEL)
        noise = gumbel_noise(noise_keys, frames, config.codebook_groups, config.codebook_entries)
        dropout_keys = DropoutKeys(utterance_keys(key, batch.utterance_id, Stream.DROPOUT), key)

        predictions, _ = apply(
            parameters,
            batch.waveform,
            batch.num_samples,
            draws.mask,
            gumbel_noise=noise,
            gumbel_temperature=gumbel_temperature(config, step),
            dropout_keys=dropout_keys,
        )
        loss, sums = loss_and_sums(config, predictions, draws, diversity_weight(config, step))
        return loss, sums | {"audio_seconds": _audio_seconds(batch)}

    def value_and_grad(parameters, state, batch: Batch, key, step):
        gradients, sums = jax.grad(training_loss, has_aux=True)(parameters, state, batch, key, step)
        return gradients, state, sums

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
        return sums | {"audio_seconds": _audio_seconds(batch)}

    return Objective(init, training_loss, value_and_grad, evaluate, summarise)


def shuffle_masked(
    context: Float[Array, "batch time dim"],
    mask: Bool[Array, "batch time"],
    keys: Key[Array, " batch"],
) -> Float[Array, "batch time dim"]:
    """Permute the context vectors of the masked frames among themselves, per utterance.

    The control of the contrastive accuracy: whatever it still scores comes from what all frames
    of an utterance share, not from the frame's own context.
    """

    def shuffle(x, masked, key):
        scores = jax.random.uniform(key, masked.shape)
        source = jnp.argsort(jnp.where(masked, scores, jnp.inf), stable=True)
        target = jnp.argsort(~masked, stable=True)
        return x.at[target].set(x[source])

    return jax.vmap(shuffle)(context, mask, keys)


def summarise(sums: Sums) -> dict[str, float]:
    """Means of all sums, with histograms turned into perplexities over all their frames."""
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


def _audio_seconds(batch: Batch) -> Total:
    return Total(batch.num_samples.sum().astype(jnp.float32) / SAMPLE_RATE_HZ, jnp.float32(1.0))
