"""Random draws of a pre-training step, and its losses as sums over frames, which add up over batches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from w2v_jax.batch import Batch, Sums, Total
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.model.frame_counts import frame_lengths
from w2v_jax.model.quantizer import gumbel_noise, gumbel_temperature
from w2v_jax.model.time_blocks import balanced
from w2v_jax.model.wav2vec2 import DropoutKeys, Predictions
from w2v_jax.objective import losses
from w2v_jax.objective.masking import span_mask
from w2v_jax.objective.negatives import count_negatives, sample_negatives
from w2v_jax.randomness import Stream, utterance_keys


class Draws(NamedTuple):
    """The random draws that the losses need: masked frames, and the distractors of each."""

    mask: Bool[Array, "batch time"]
    negatives: Int[Array, "batch time negative"]

    @property
    def negative_counts(self) -> Int[Array, "batch time time"]:
        """The number of times that each frame was drawn for each other one."""
        return count_negatives(self.negatives, self.mask)


class FrameSums(NamedTuple):
    """Sums over the frames of a batch, which give its losses and add up over micro-batches."""

    masked: Float[Array, ""]  # frames
    valid: Float[Array, ""]  # frames
    contrastive: Float[Array, ""]  # nats, over masked frames
    correct: Float[Array, ""]  # masked frames
    penalty: Float[Array, ""]  # mean squared feature, over valid frames
    probabilities: Float[Array, "group entry"]  # over masked frames
    codes: Float[Array, "group entry"]  # masked frames that chose an entry


def draw_mask(config: ModelConfig, batch: Batch, key: Key[Array, ""]) -> Bool[Array, "batch time"]:
    """Draw the span mask of a batch."""
    return span_mask(
        utterance_keys(key, batch.utterance_id, Stream.MASK),
        frame_lengths(batch.num_samples, config),
        config.num_frames(batch.waveform.shape[1]),
        probability=config.mask_probability,
        span=config.mask_span,
        min_spans=config.mask_min_spans,
    )


def draw(config: ModelConfig, batch: Batch, key: Key[Array, ""]) -> Draws:
    """Draw the span mask and the distractors of a batch.

    Args:
        config: gives mask_probability, mask_span, mask_min_spans and num_negatives.
        batch: only its lengths and identities are used.
        key: key of the step, from which every utterance gets a key of its own.
    """
    mask = draw_mask(config, batch, key)
    negative_keys = utterance_keys(key, batch.utterance_id, Stream.NEGATIVES)
    return Draws(mask, sample_negatives(negative_keys, mask, config.num_negatives))


def dropout_keys(batch: Batch, key: Key[Array, ""]) -> DropoutKeys:
    """Derive the keys of a training step's dropout."""
    return DropoutKeys(utterance_keys(key, batch.utterance_id, Stream.DROPOUT), key)


def training_noise(
    config: ModelConfig, batch: Batch, key: Key[Array, ""], step: Int[Array, ""] | int
) -> dict[str, Any]:
    """Make the arguments of a training step's forward pass: Gumbel noise, its temperature, dropout keys."""
    noise_keys = utterance_keys(key, batch.utterance_id, Stream.GUMBEL)
    frames = config.num_frames(batch.waveform.shape[1])
    return {
        "gumbel_noise": gumbel_noise(noise_keys, frames, config.codebook_groups, config.codebook_entries),
        "gumbel_temperature": gumbel_temperature(config, step),
        "dropout_keys": dropout_keys(batch, key),
    }


def contrast_of(config: ModelConfig, predictions: Predictions, draws: Draws) -> losses.Contrast:
    """Compute the contrastive task's result for every frame of a batch."""
    blocks = balanced(draws.mask.shape[1], config.similarity_block_frames)
    codes, temperature = predictions.quantized.codes, config.contrastive_temperature
    if config.gathered_negatives:
        usable = draws.mask & (draws.mask.sum(1, keepdims=True) > 1)
        return losses.gathered_contrastive(
            predictions.context, predictions.targets, codes, draws.negatives, usable, temperature
        )
    if blocks.count == 1:
        similarity = losses.cosine_similarity(predictions.context, predictions.targets)
        return losses.contrastive(similarity, codes, draws.negative_counts, temperature)

    def body(carry: None, per_block: Any) -> tuple[None, losses.Contrast]:
        first, context, negatives = per_block
        rows = first + jnp.arange(blocks.width)
        similarity = losses.cosine_similarity(context, predictions.targets)
        counts = count_negatives(negatives, draws.mask, rows)
        return None, losses.contrastive(similarity, codes, counts, temperature, rows)

    per_block = (blocks.starts, blocks.cut(predictions.context), blocks.cut(draws.negatives))
    _, found = jax.lax.scan(jax.checkpoint(body, prevent_cse=False), None, per_block)
    return jax.tree.map(blocks.join, found)


def frame_sums(config: ModelConfig, predictions: Predictions, draws: Draws) -> FrameSums:
    """Sum over the frames of a batch."""
    mask, valid = draws.mask.astype(jnp.float32), predictions.valid.astype(jnp.float32)
    contrast, quantized = contrast_of(config, predictions, draws), predictions.quantized
    choice = jax.nn.one_hot(quantized.codes, config.codebook_entries, dtype=jnp.float32)
    return FrameSums(
        masked=mask.sum(),
        valid=valid.sum(),
        contrastive=(contrast.loss * mask).sum(),
        correct=(contrast.correct.astype(jnp.float32) * mask).sum(),
        penalty=(jnp.square(predictions.features).mean(-1) * valid).sum(),
        probabilities=masked_sum(quantized.probabilities, draws.mask),
        codes=masked_sum(choice, draws.mask),
    )


def masked_sum(
    values: Float[Array, "batch time group entry"], mask: Bool[Array, "batch time"]
) -> Float[Array, "group entry"]:
    """Sum over the True frames of a batch."""
    return (values * mask.astype(jnp.float32)[..., None, None]).sum((0, 1))


def loss_and_sums(
    config: ModelConfig,
    predictions: Predictions,
    draws: Draws,
    diversity_weight: Float[Array, ""] | float | None = None,
) -> tuple[Float[Array, ""], Sums]:
    """Compute the loss per masked frame of a batch, in nats, and its sums.

    Args:
        config: the model's configuration.
        predictions: outputs of its forward pass.
        draws: as `draw` makes them with the step's key.
        diversity_weight: default: that of the configuration. `loss_of` shows how the losses are weighted.
    """
    return loss_of(config, frame_sums(config, predictions, draws), diversity_weight)


def loss_of(
    config: ModelConfig, sums: FrameSums, diversity_weight: Float[Array, ""] | float | None = None
) -> tuple[Float[Array, ""], Sums]:
    """Compute the loss per masked frame, and the sums to log, from a whole batch's sums over frames.

    The loss is contrastive + diversity_weight x diversity + feature_penalty_weight x penalty. fairseq
    multiplies the last two by the number of masked frames and divides the whole by it once, which is the
    same. A batch without a masked frame has loss and gradient zero.
    """
    if diversity_weight is None:
        diversity_weight = config.diversity_weight
    masked = jnp.maximum(sums.masked, 1.0)
    some = (sums.masked > 0).astype(jnp.float32)
    contrastive = sums.contrastive / masked
    diversity = losses.diversity(sums.probabilities / masked) * some
    penalty = sums.penalty / jnp.maximum(sums.valid, 1.0) * some
    loss = contrastive + diversity_weight * diversity + config.feature_penalty_weight * penalty

    def per_frame(mean):
        return Total(mean * sums.masked, sums.masked)

    found = {
        "loss": per_frame(loss),
        "contrastive": Total(sums.contrastive, sums.masked),
        "diversity": per_frame(diversity),
        "feature_penalty": per_frame(penalty),
        "accuracy": Total(sums.correct, sums.masked),
        "masked_share": Total(sums.masked, sums.valid),
        "code_counts": Total(sums.codes, sums.masked),
        "probability_sums": Total(sums.probabilities, sums.masked),
    }
    return loss, jax.lax.stop_gradient(found)


def diversity_weight(config: ModelConfig, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """Compute the diversity loss's weight at a global update; it may rise quadratically from zero."""
    rise = (jnp.asarray(step, jnp.float32) + 1.0) / max(config.diversity_warmup_updates, 1)
    return config.diversity_weight * jnp.square(jnp.minimum(rise, 1.0))


def audio_seconds(batch: Batch) -> Total:
    """Sum the seconds of speech in a batch."""
    return Total(batch.num_samples.sum().astype(jnp.float32) / SAMPLE_RATE_HZ, jnp.float32(1.0))


def truncated(config: ModelConfig, batch: Batch) -> Batch:
    """Cut a batch's clips to their first `config.truncate_seconds` seconds, if that is set."""
    if config.truncate_seconds is None:
        return batch
    samples = round(config.truncate_seconds * SAMPLE_RATE_HZ)
    waveform = batch.waveform[:, :samples]
    return batch._replace(waveform=waveform, num_samples=jnp.minimum(batch.num_samples, waveform.shape[1]))
