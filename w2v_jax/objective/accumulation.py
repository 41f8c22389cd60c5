"""Gradients of a batch from a few of its utterances at a time, exact for all three losses.

The contrastive loss and the feature penalty are sums over frames, divided by counts that are known
beforehand, so micro-batches add up. The diversity loss is a function of the batch's average choice
probabilities. A first pass, through the feature encoder alone, gathers that average. The gradient of the loss
with respect to the average is then a constant, and the linearisation of the loss there replaces it: it adds
up too and has the same gradient.

Only the parameters and one set of gradients are as large as the model: gradients of the transformer are added
layer by layer (layer_gradients), and those of the feature encoder block by block (encoder_blocks).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from w2v_jax.batch import Batch, Sums
from w2v_jax.config import ModelConfig
from w2v_jax.model import encoder_blocks
from w2v_jax.model.binding import Parameters
from w2v_jax.model.features import blocked_encoder, log_mel_frames
from w2v_jax.model.frame_counts import frame_lengths
from w2v_jax.model.layer_gradients import Descent, Sink
from w2v_jax.model.wav2vec2 import normalise_waveform
from w2v_jax.objective import losses
from w2v_jax.objective.pretraining_loss import (
    FrameSums,
    diversity_weight,
    draw,
    draw_mask,
    dropout_keys,
    frame_sums,
    loss_of,
    masked_sum,
    training_noise,
)

# Features of all utterances are kept from the first pass to the second where they take no more than this, and
# are computed again where they take more: a large batch must not need more memory than a small one.
KEPT_FEATURES_BYTES = 32 * 2**20

ENCODER = "feature_encoder"
Apply = Callable[..., Any]


class Whole(NamedTuple):
    """Values of the whole batch that the losses of a micro-batch need."""

    masked: Float[Array, ""]  # frames
    valid: Float[Array, ""]  # frames
    diversity_gradient: Float[Array, "group entry"]  # with respect to the summed probabilities, weighted


def value_and_grad(
    config: ModelConfig,
    apply: Apply,
    parameters: Parameters,
    batch: Batch,
    key: Key[Array, ""],
    step: Int[Array, ""] | int,
    loss_scale: Float[Array, ""] | float = 1.0,
) -> tuple[Parameters, Sums]:
    """Compute gradients of the batch's mean loss, `config.micro_batch` utterances at a time, and its sums.

    Args:
        config: `micro_batch` must be set.
        apply: the function of the model, made by `bind`.
        parameters: parameters of the model.
        batch, key, step, loss_scale: as an Objective takes them.
    """
    assert config.micro_batch is not None
    micro_batches = MicroBatches.of(batch, config.micro_batch)
    whole, kept = _first_pass(config, apply, parameters, batch, micro_batches, key, step)
    layers, others = apart(parameters)

    def body(carry, inputs):
        index, features = inputs
        micro_batch = micro_batches.at(index)
        gradients, values, encoder, sums = carry
        if features is None:
            features = _encode(config, parameters, micro_batch)

        def loss(others, sink, features):
            held = together(layers, others)
            share, sums = _loss(config, apply, held, micro_batch, key, step, whole, sink, features)
            return share * loss_scale, sums

        (found, sink, change), more = jax.grad(loss, (0, 1, 2), has_aux=True)(
            others, Sink(values, jnp.float32(1.0)), features[0]
        )
        gradients, sums = jax.tree.map(jnp.add, (gradients, sums), (found, more))
        if config.trains_front_end:
            encoder = _pull_encoder(config, parameters, micro_batch, features[1], change, encoder)
        return (gradients, sink.values, encoder, sums), None

    zeros = jax.tree.map(jnp.zeros_like, (others, layers, parameters.get(ENCODER)))
    start = (*zeros, no_sums(config))
    (gradients, values, encoder, sums), _ = jax.lax.scan(body, start, (micro_batches.indices, kept))
    gradients = together(values, gradients) | ({} if encoder is None else {ENCODER: encoder})
    return gradients, loss_of(config, sums, diversity_weight(config, step))[1]


def descend(
    config: ModelConfig,
    apply: Apply,
    parameters: Parameters,
    batch: Batch,
    key: Key[Array, ""],
    step: Int[Array, ""] | int,
    rate: Float[Array, ""],
) -> tuple[Parameters, Sums]:
    """Take a step of plain gradient descent that applies each layer's gradient as soon as it is known.

    It takes the whole batch at once: gradients of several micro-batches would have to be kept to be added up.

    Returns:
        The new parameters, and the sums of the batch.
    """
    layers, others = apart(parameters)
    if ENCODER in parameters:
        others = others | {ENCODER: parameters[ENCODER]}
    draws, noise = draw(config, batch, key), training_noise(config, batch, key, step)

    def loss(others, sink):
        predictions, _ = apply(
            together(layers, others), batch.waveform, batch.num_samples, draws.mask, **noise, sink=sink
        )
        return loss_of(config, frame_sums(config, predictions, draws), diversity_weight(config, step))

    (gradients, sink), sums = jax.grad(loss, (0, 1), has_aux=True)(others, Descent(layers, -rate))
    others = jax.tree.map(lambda p, g: p - rate * g, others, gradients)
    return together(sink.values, others), sums


def keeps_features(config: ModelConfig, utterances: int, samples: int) -> bool:
    """Tell whether a batch's features are kept from the first pass to the second."""
    return utterances * config.num_frames(samples) * config.feature_dim * 4 <= KEPT_FEATURES_BYTES


class MicroBatches(NamedTuple):
    """A batch that is read some rows at a time; it is copied only if rows have to be added.

    Attributes:
        batch: the batch; added rows have no samples.
        rows: rows of a micro-batch.
    """

    batch: Batch
    rows: int

    @classmethod
    def of(cls, batch: Batch, rows: int) -> "MicroBatches":
        """Make micro-batches of `rows` rows, or of the whole batch if it has fewer."""
        rows = min(rows, batch.waveform.shape[0])
        more = -batch.waveform.shape[0] % rows
        if more:
            batch = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, more), *[(0, 0)] * (leaf.ndim - 1))), batch)
        return cls(batch, rows)

    @property
    def indices(self) -> Int[Array, " micro_batch"]:
        """The indices of all micro-batches."""
        return jnp.arange(self.batch.waveform.shape[0] // self.rows)

    def at(self, index: Int[Array, ""]) -> Batch:
        """Cut out the micro-batch of an index."""
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index * self.rows, self.rows), self.batch
        )


def no_sums(config: ModelConfig) -> FrameSums:
    """Make zero sums, to start accumulating from."""
    zero, entries = jnp.float32(0.0), jnp.zeros((config.codebook_groups, config.codebook_entries))
    return FrameSums(zero, zero, zero, zero, zero, entries, entries)


def _first_pass(config, apply, parameters, batch, micro_batches, key, step) -> tuple[Whole, Any]:
    """Compute the values of the whole batch that its losses need, and its features where they are kept."""
    masked = draw_mask(config, batch, key).sum().astype(jnp.float32)
    valid = frame_lengths(batch.num_samples, config).sum().astype(jnp.float32)
    keep = keeps_features(config, *batch.waveform.shape)

    def body(total, index):
        micro_batch = micro_batches.at(index)
        features = _encode(config, parameters, micro_batch)
        probabilities = apply(
            parameters,
            features[0],
            dropout_keys=dropout_keys(micro_batch, key),
            method="choice_probabilities",
        )
        total = total + masked_sum(probabilities, draw_mask(config, micro_batch, key))
        return total, features if keep else None

    start = jnp.zeros((config.codebook_groups, config.codebook_entries))
    total, kept = jax.lax.scan(body, start, micro_batches.indices)
    divisor = jnp.maximum(masked, 1.0)
    slope = jax.grad(lambda total: losses.diversity(total / divisor))(total)
    some = (masked > 0).astype(jnp.float32)
    return Whole(masked, valid, slope * some * diversity_weight(config, step)), kept


def _loss(config, apply, parameters, micro_batch, key, step, whole: Whole, sink, features):
    """Compute a micro-batch's share of a loss with the batch's gradient, and its sums over frames."""
    draws = draw(config, micro_batch, key)
    predictions, _ = apply(
        parameters,
        micro_batch.waveform,
        micro_batch.num_samples,
        draws.mask,
        **training_noise(config, micro_batch, key, step),
        features=features,
        sink=sink,
    )
    sums = frame_sums(config, predictions, draws)
    some = (whole.masked > 0).astype(jnp.float32)
    penalty = config.feature_penalty_weight * some * sums.penalty / jnp.maximum(whole.valid, 1.0)
    diversity = (whole.diversity_gradient * sums.probabilities).sum()
    return sums.contrastive / jnp.maximum(whole.masked, 1.0) + diversity + penalty, sums


def _prepared(config: ModelConfig, batch: Batch) -> tuple[Array, Array]:
    """Prepare a batch's waveform and lengths for the feature encoder."""
    if config.normalise_waveform:
        return normalise_waveform(batch.waveform, batch.num_samples), batch.num_samples
    return batch.waveform, batch.num_samples


def _encoder(config: ModelConfig, batch: Batch) -> encoder_blocks.BlockedEncoder:
    """Build the feature encoder in blocks, or in a single block."""
    return blocked_encoder(config, config.num_frames(batch.waveform.shape[1]))


def _encode(config: ModelConfig, parameters: Parameters, batch: Batch) -> tuple[Array, Any]:
    """Compute features, and the statistics that `_pull_encoder` needs."""
    with jax.named_scope(ENCODER):
        if config.front_end == "log-mel":
            return log_mel_frames(config, *_prepared(config, batch)), None
        return encoder_blocks.forward(_encoder(config, batch), parameters[ENCODER], *_prepared(config, batch))


def _pull_encoder(config, parameters, batch, statistics, cotangent, total) -> Parameters:
    """Add to `total` the gradients of the feature encoder, from those of its features."""
    with jax.named_scope(ENCODER):
        return encoder_blocks.pull_back(
            _encoder(config, batch),
            parameters[ENCODER],
            *_prepared(config, batch),
            statistics,
            cotangent,
            total,
        )


def apart(parameters: Parameters) -> tuple[Parameters, Parameters]:
    """Split parameters into the transformer's layers and the rest without the feature encoder."""
    context = dict(parameters["context_network"])
    layers = context.pop("layers")
    others = {name: value for name, value in parameters.items() if name != ENCODER}
    return layers, others | {"context_network": context}


def together(layers: Parameters, others: Parameters) -> Parameters:
    """Put together what `apart` split; the feature encoder is there if `others` hold it."""
    return others | {"context_network": others["context_network"] | {"layers": layers}}
