"""Keyword spotting: one class a clip, from the pooled frames of an encoder, as an Objective."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from w2v_jax.batch import LabelledBatch, Sums, Total
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.model.layers import Linear, Scoped
from w2v_jax.model.wav2vec2 import DropoutKeys
from w2v_jax.objective.pretraining import Objective, bind
from w2v_jax.randomness import Stream, dropout, fold_in_all, utterance_keys
from w2v_jax.recognition.frames import Frames, FramesConfig, frames_of
from w2v_jax.recognition.heads import DROPPED_BLOCKS, FrameNorm, HeadBlock, Statistics, fresh_statistics

Pooling = Literal["mean", "attentive"]
OUTSIDE_SCORE = -1e9  # of frames outside a part of a clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeywordHeadConfig:
    """Shape of the head of a keyword spotter.

    Attributes:
        num_classes: scores of a clip.
        pooling: mean weights all frames equally; attentive weights them by a softmax of trained scores.
        segments: equal parts of a clip that are pooled one by one, and scored side by side.
        num_blocks: Linear, batch normalisation and leaky ReLU on every frame, before the pooling; with any,
            the head's input is normalised first.
        width: of the blocks.
        projection: width of a linear layer on every frame, before the pooling, as transformers has; None is
            no such layer.
        weighted_layers: whether the frames are a weighted sum of all layers, as in SUPERB (arXiv 2105.01051),
            instead of the last layer's.
        dropout: rate after a block and after the pooling.
    """

    num_classes: int
    pooling: Pooling = "mean"
    segments: int = 1
    num_blocks: int = 0
    width: int = 256
    projection: int | None = None
    weighted_layers: bool = False
    dropout: float = 0.15


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeywordSpotterConfig(FramesConfig):
    """Configuration of a keyword spotter: the frames, and the head that scores a clip.

    Attributes:
        label_smoothing: share of a label that is spread over all classes in training.
    """

    head: KeywordHeadConfig
    label_smoothing: float = 0.0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "KeywordSpotterConfig":
        """Build a configuration from the dict that dataclasses.asdict gave, JSON included."""
        model, head = ModelConfig.from_dict(values["model"]), KeywordHeadConfig(**values["head"])
        return cls(**{**values, "model": model, "head": head})


class KeywordHead(Scoped):
    """Scores of the classes of a clip."""

    def __init__(self, config: KeywordSpotterConfig, key: Key[Array, ""]):
        head, dtype = config.head, config.model.compute_dtype
        keys = jax.random.split(key, head.num_blocks + 3)
        dim = config.feature_dim
        if head.weighted_layers:
            self.layer_weights = nnx.Param(jnp.zeros(config.model.num_layers + 1))
        if head.num_blocks:
            self.input_norm = FrameNorm(dim)
        for index in range(head.num_blocks):
            setattr(self, f"blocks_{index}", HeadBlock(dim, head.width, keys[index], dtype))
            dim = head.width
        if head.projection is not None:
            self.projection = Linear(dim, head.projection, keys[-3], dtype=dtype)
            dim = head.projection
        if head.pooling == "attentive":
            self.attention = Linear(dim, 1, keys[-2], dtype=dtype)
        self.output = Linear(dim * head.segments, head.num_classes, keys[-1], dtype=dtype)
        self.config = head

    def __call__(
        self,
        frames: Frames,
        statistics: Statistics,
        *,
        training: bool = False,
        dropout_keys: Key[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, "batch class"], Statistics]:
        """Compute scores (logits), and the running statistics after this batch."""
        found: Statistics = {}
        x = frames.last
        if self.config.weighted_layers:
            weights = jax.nn.softmax(self.layer_weights[...])
            x = jnp.einsum("l,lbtd->btd", weights, jnp.stack(frames.layers))
        if self.config.num_blocks:
            x, found["input_norm"] = self.input_norm(x, frames.valid, statistics["input_norm"], training)
        for index in range(self.config.num_blocks):
            name = f"blocks_{index}"
            x, found[name] = getattr(self, name)(x, frames.valid, statistics[name], training)
            if index < DROPPED_BLOCKS and dropout_keys is not None:
                x = dropout(x, self.config.dropout, fold_in_all(dropout_keys, index))
        if self.config.projection is not None:
            x = self.projection(x)
        scores = self.attention(x)[..., 0] if self.config.pooling == "attentive" else None
        x = pooled(x, frames.valid, self.config.segments, scores).reshape(x.shape[0], 1, -1)
        if dropout_keys is not None:
            x = dropout(x, self.config.dropout, fold_in_all(dropout_keys, self.config.num_blocks))
        return self.output(x)[:, 0], found


def pooled(
    x: Float[Array, "batch time dim"],
    valid: Bool[Array, "batch time"],
    segments: int = 1,
    scores: Float[Array, "batch time"] | None = None,
) -> Float[Array, "batch segment dim"]:
    """Average the valid frames of equal parts of each clip; a part without frames is zero.

    Args:
        x: frames.
        valid: frames that are not padding; they come first.
        segments: parts.
        scores: logits of the frames' weights within their part; None for equal weights.
    """
    frames = jnp.maximum(valid.sum(1, keepdims=True), 1)
    part = jnp.arange(x.shape[1])[None, :] * segments // frames
    inside = valid[:, None, :] & (part[:, None, :] == jnp.arange(segments)[None, :, None])
    held = jnp.zeros(valid.shape) if scores is None else scores
    weights = jax.nn.softmax(jnp.where(inside, held[:, None, :], OUTSIDE_SCORE), axis=-1)
    return jnp.einsum("bst,btd->bsd", weights * inside.astype(weights.dtype), x)


def initial_statistics(config: KeywordSpotterConfig) -> Statistics:
    """Make the running statistics before the first batch: mean 0, variance 1; none without blocks."""
    if not config.head.num_blocks:
        return {}
    blocks = {
        f"blocks_{index}": fresh_statistics(config.head.width) for index in range(config.head.num_blocks)
    }
    return {"input_norm": fresh_statistics(config.feature_dim), **blocks}


class KeywordSpotter(NamedTuple):
    """A keyword spotter as pure functions over parameters {"encoder", "head"}.

    Attributes:
        objective: its training; `state` is the running statistics of the head.
        scores: (parameters, state, waveform, num_samples) -> logits [batch, class], without dropout.
        classify: (parameters, state, batch) -> (probabilities [batch, class], sums). The label of a clip is
            `labels[:, 0]`; a clip of a class that has no score has `num_labels` 0.
    """

    objective: Objective
    scores: Callable
    classify: Callable


def keyword_losses(
    logits: Float[Array, "batch class"], labels: Int[Array, " batch"], smoothing: float = 0.0
) -> Float[Array, " batch"]:
    """Compute the cross-entropy of each clip's class, in nats.

    Args:
        logits: scores.
        labels: the right classes.
        smoothing: share of the label that is spread over all classes.
    """
    found = jax.nn.log_softmax(logits.astype(jnp.float32))
    right = jnp.take_along_axis(found, labels[:, None], axis=1)[:, 0]
    return -((1.0 - smoothing) * right + smoothing * found.mean(1))


def loss_and_sums(
    logits: Float[Array, "batch class"], batch: LabelledBatch, smoothing: float = 0.0
) -> tuple[Float[Array, ""], Sums]:
    """Compute the mean loss over the labelled clips, and the sums of a batch.

    A clip without a label has no loss, and counts as wrong.
    """
    labels = batch.labels[:, 0]
    there = batch.num_samples > 0
    labelled = (there & (batch.num_labels > 0)).astype(jnp.float32)
    losses = keyword_losses(logits, labels, smoothing) * labelled
    correct = (logits.argmax(-1) == labels).astype(jnp.float32) * labelled
    sums = {
        "loss": Total(losses.sum(), labelled.sum()),
        "accuracy": Total(correct.sum(), there.astype(jnp.float32).sum()),
        "audio_seconds": Total(
            batch.num_samples.sum().astype(jnp.float32) / SAMPLE_RATE_HZ, jnp.float32(1.0)
        ),
    }
    return losses.sum() / jnp.maximum(labelled.sum(), 1.0), jax.lax.stop_gradient(sums)


def keyword_spotter(config: KeywordSpotterConfig) -> KeywordSpotter:
    """Build the keyword spotter of one configuration; the loss is the mean cross-entropy of a batch, in nats.

    Raises:
        ValueError: a weighted sum of layers, of log-mel features.
    """
    if config.head.weighted_layers and config.features != "encoder":
        raise ValueError(f"{config.features} features have no layers to weight")
    init_encoder, encode = frames_of(config)
    init_head, apply_head = bind(lambda key: KeywordHead(config, key))

    def init(key):
        encoder_key, head_key = jax.random.split(key)
        parameters = {"encoder": init_encoder(encoder_key), "head": init_head(head_key)}
        return parameters, initial_statistics(config)

    def forward(parameters, state, waveform, num_samples, dropout_keys: DropoutKeys | None):
        return apply_head(
            parameters["head"],
            encode(parameters["encoder"], waveform, num_samples, dropout_keys),
            state,
            training=dropout_keys is not None,
            dropout_keys=None if dropout_keys is None else dropout_keys.utterance,
        )

    def training_loss(parameters, state, batch: LabelledBatch, key, step):
        keys = DropoutKeys(utterance_keys(key, batch.utterance_id, Stream.DROPOUT), key)
        logits, state = forward(parameters, state, batch.waveform, batch.num_samples, keys)
        loss, sums = loss_and_sums(logits, batch, config.label_smoothing)
        return loss, (state, sums)

    def value_and_grad(parameters, state, batch: LabelledBatch, key, step):
        gradients, (state, sums) = jax.grad(training_loss, has_aux=True)(parameters, state, batch, key, step)
        return gradients, state, sums

    def scores(parameters, state, waveform, num_samples):
        return forward(parameters, state, waveform, num_samples, None)[0]

    def classify(parameters, state, batch: LabelledBatch):
        logits = scores(parameters, state, batch.waveform, batch.num_samples)
        return jax.nn.softmax(logits.astype(jnp.float32)), loss_and_sums(logits, batch)[1]

    def evaluate(parameters, state, batch: LabelledBatch, key):
        return classify(parameters, state, batch)[1]

    def mean_loss(parameters, state, batch: LabelledBatch, key, step):
        loss, (_, sums) = training_loss(parameters, state, batch, key, step)
        return loss, sums

    objective = Objective(init, mean_loss, value_and_grad, evaluate, summarise)
    return KeywordSpotter(objective, scores, classify)


def summarise(sums: Sums) -> dict[str, float]:
    """Convert sums into nats per clip, the share of clips that are right, and audio seconds."""

    def mean(name: str) -> float:
        total, weight = (float(np.asarray(value)) for value in sums[name])
        return total / weight if weight else float("nan")

    return {
        "loss": mean("loss"),
        "accuracy": mean("accuracy"),
        "audio_seconds": float(np.asarray(sums["audio_seconds"].total)),
    }
