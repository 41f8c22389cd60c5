"""BEST-RQ as an Objective: the model names the codes of masked frames (Chiu et al., arXiv 2202.01855)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from w2v_jax.batch import Batch, Sums, Total
from w2v_jax.config import ModelConfig
from w2v_jax.model.best_rq import BestRQ, target_codes
from w2v_jax.model.binding import Parameters, bind
from w2v_jax.model.layer_gradients import Descent, Sink
from w2v_jax.model.time_blocks import balanced
from w2v_jax.objective import losses
from w2v_jax.objective.accumulation import MicroBatches, apart, together
from w2v_jax.objective.masking import shuffle_masked
from w2v_jax.objective.objective import Objective
from w2v_jax.objective.pretraining_loss import audio_seconds, draw_mask, dropout_keys, masked_sum, truncated
from w2v_jax.objective.summary import summarise
from w2v_jax.randomness import Stream, utterance_keys


class Predicted(NamedTuple):
    """Predictions of every frame, as means over the codebooks; they have a meaning at masked frames alone.

    Attributes:
        loss: cross-entropy in nats.
        correct: share of the codebooks whose most likely entry is the frame's code.
        probabilities: the probabilities of every entry, summed over masked frames.
    """

    loss: Float[Array, "batch time"]
    correct: Float[Array, "batch time"]
    probabilities: Float[Array, "book entry"]


def bind_model(config: ModelConfig) -> tuple[Callable, Callable]:
    """Build (init, apply) of the BEST-RQ model."""
    return bind(lambda key: BestRQ(config, key))


def best_rq_objective(config: ModelConfig) -> Objective:
    """Build the Objective of BEST-RQ: the mean cross-entropy over masked frames and codebooks, in nats."""
    init_parameters, apply = bind_model(config)

    def init(key):
        return init_parameters(key), {}

    def training_loss(parameters, state, batch: Batch, key, step):
        return share(parameters, truncated(config, batch), key, None)

    def share(parameters, batch: Batch, key, masked, sink: Sink | None = None):
        """Compute a micro-batch's share of the batch's loss; `masked` frames are in the whole batch."""
        mask = draw_mask(config, batch, key)
        encoded, _ = apply(
            parameters,
            batch.waveform,
            batch.num_samples,
            mask,
            dropout_keys=dropout_keys(batch, key),
            sink=sink,
        )
        codes = target_codes(config, encoded.features)
        found = predict(config, apply, parameters, encoded.context, codes, mask)
        sums = sums_of(config, batch, mask, encoded.valid, codes, found)
        divisor = sums["loss"].weight if masked is None else masked
        return sums["loss"].total / jnp.maximum(divisor, 1.0), jax.lax.stop_gradient(sums)

    def value_and_grad(parameters, state, batch: Batch, key, step, loss_scale=1.0):
        batch = truncated(config, batch)
        if config.micro_batch is None:
            scaled = _scaled(lambda held: share(held, batch, key, None), loss_scale)
            gradients, sums = jax.grad(scaled, has_aux=True)(parameters)
            return gradients, state, sums
        masked = draw_mask(config, batch, key).sum().astype(jnp.float32)
        micro_batches = MicroBatches.of(batch, config.micro_batch)
        layers, others = apart(parameters)

        def body(carry, index):
            total, values = carry

            def loss(others, sink):
                held = together(layers, others)
                value, sums = share(held, micro_batches.at(index), key, masked, sink)
                return value * loss_scale, sums

            (found, sink), sums = jax.grad(loss, (0, 1), has_aux=True)(others, Sink(values, jnp.float32(1.0)))
            return (jax.tree.map(jnp.add, total, found), sink.values), sums

        start = jax.tree.map(jnp.zeros_like, (others, layers))
        (gradients, values), sums = jax.lax.scan(body, start, micro_batches.indices)
        sums = {name: Total(*(part.sum(0) for part in held)) for name, held in sums.items()}
        sums["audio_seconds"] = audio_seconds(batch)
        return together(values, gradients), state, sums

    def descend(parameters, state, batch: Batch, key, step, rate):
        batch = truncated(config, batch)
        layers, others = apart(parameters)

        def loss(others, sink):
            return share(together(layers, others), batch, key, None, sink)

        (gradients, sink), sums = jax.grad(loss, (0, 1), has_aux=True)(others, Descent(layers, -rate))
        others = jax.tree.map(lambda p, g: p - rate * g, others, gradients)
        return together(sink.values, others), state, sums

    def evaluate(parameters, state, batch: Batch, key):
        mask = draw_mask(config, batch, key)
        encoded, _ = apply(parameters, batch.waveform, batch.num_samples, mask)
        codes = target_codes(config, encoded.features)
        found = predict(config, apply, parameters, encoded.context, codes, mask)
        sums = sums_of(config, batch, mask, encoded.valid, codes, found)
        keys = utterance_keys(key, batch.utterance_id, Stream.SHUFFLE)
        shuffled = shuffle_masked(encoded.context, mask, keys)
        control = predict(config, apply, parameters, shuffled, codes, mask).correct
        sums["shuffled_accuracy"] = Total(_over(control, mask), sums["loss"].weight)
        sums["accuracy_moments"] = Total(losses.utterance_moments(found.correct, mask), jnp.float32(1.0))
        return sums

    return Objective(init, training_loss, value_and_grad, evaluate, with_chance, descend)


def predict(
    config: ModelConfig,
    apply: Callable,
    parameters: Parameters,
    context: Float[Array, "batch time dim"],
    codes: Int[Array, "batch time book"],
    mask: Bool[Array, "batch time"],
) -> Predicted:
    """Predict the codes of every frame; `similarity_block_frames` frames at a time where that is set."""
    blocks = balanced(context.shape[1], config.similarity_block_frames)

    def of_frames(context, codes, mask) -> Predicted:
        scores = jax.nn.log_softmax(apply(parameters, context, method="logits").astype(jnp.float32), axis=-1)
        own = jnp.take_along_axis(scores, codes[..., None], axis=-1)[..., 0]
        hits = (scores.argmax(-1) == codes).astype(jnp.float32)
        probabilities = masked_sum(jnp.exp(jax.lax.stop_gradient(scores)), mask)
        return Predicted(-own.mean(-1), hits.mean(-1), probabilities)

    if blocks.count == 1:
        return of_frames(context, codes, mask)

    def body(carry: None, per_block: Any) -> tuple[None, Predicted]:
        return None, of_frames(*per_block)

    per_block = (blocks.cut(context), blocks.cut(codes), blocks.cut(mask))
    _, found = jax.lax.scan(jax.checkpoint(body, prevent_cse=False), None, per_block)
    return Predicted(blocks.join(found.loss), blocks.join(found.correct), found.probabilities.sum(0))


def sums_of(
    config: ModelConfig,
    batch: Batch,
    mask: Bool[Array, "batch time"],
    valid: Bool[Array, "batch time"],
    codes: Int[Array, "batch time book"],
    found: Predicted,
) -> Sums:
    """Sum over the masked frames of a batch."""
    masked = mask.sum().astype(jnp.float32)
    choice = jax.nn.one_hot(codes, config.target_entries, dtype=jnp.float32)
    return {
        "loss": Total(_over(found.loss, mask), masked),
        "accuracy": Total(_over(found.correct, mask), masked),
        "masked_share": Total(masked, valid.sum().astype(jnp.float32)),
        "code_counts": Total(masked_sum(choice, mask), masked),
        "probability_sums": Total(found.probabilities, masked),
        "audio_seconds": audio_seconds(batch),
    }


def with_chance(sums: Sums) -> dict[str, float]:
    """Summarise sums; chance is the accuracy of always naming each codebook's most frequent code."""
    found = summarise(sums)
    if "accuracy_moments" in sums:
        counts, masked = (np.asarray(part, np.float64) for part in sums["code_counts"])
        found["chance_accuracy"] = float(counts.max(-1).mean() / masked) if masked else float("nan")
    return found


def _over(values: Float[Array, "batch time"], mask: Bool[Array, "batch time"]) -> Float[Array, ""]:
    """Sum over masked frames."""
    return (values * mask.astype(jnp.float32)).sum()


def _scaled(function: Callable, scale: Float[Array, ""] | float) -> Callable:
    """Multiply the first of two results."""

    def scaled(parameters):
        value, more = function(parameters)
        return value * scale, more

    return scaled
