"""Speech recognition by CTC on top of the encoder, as an Objective; greedy decoding."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from w2v_jax.batch import LabelledBatch, Sums, Total
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.model.frame_counts import valid_frames
from w2v_jax.model.wav2vec2 import DropoutKeys
from w2v_jax.objective.pretraining import Objective, bind
from w2v_jax.randomness import Stream, utterance_keys
from w2v_jax.recognition.frames import FramesConfig, frames_of
from w2v_jax.recognition.heads import CTCHead, HeadConfig, initial_statistics

BLANK = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecognizerConfig(FramesConfig):
    """Configuration of a recognizer: the frames, and the head that scores each of them."""

    head: HeadConfig

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RecognizerConfig":
        """Build a configuration from the dict that dataclasses.asdict gave, JSON included."""
        model, head = ModelConfig.from_dict(values["model"]), HeadConfig(**values["head"])
        return cls(**{**values, "model": model, "head": head})


class Recognizer(NamedTuple):
    """A recognizer as pure functions over parameters {"encoder", "head"}.

    Attributes:
        objective: its training; `state` is the running statistics of the head.
        scores: (parameters, state, waveform, num_samples) -> (logits [batch, time, token],
            num_frames [batch]), without dropout.
        recognise: (parameters, state, batch) -> (best token of every frame [batch, time],
            num_frames [batch], sums).
    """

    objective: Objective
    scores: Callable
    recognise: Callable


def needed_frames(
    labels: Int[Array, "batch label"], num_labels: Int[Array, " batch"]
) -> Int[Array, " batch"]:
    """Count the frames that CTC needs: one a label, and one for the blank between equal neighbours."""
    both = jnp.arange(1, labels.shape[1])[None, :] < num_labels[:, None]
    repeats = ((labels[:, 1:] == labels[:, :-1]) & both).sum(1)
    return num_labels + repeats


def ctc_losses(
    logits: Float[Array, "batch time token"],
    num_frames: Int[Array, " batch"],
    labels: Int[Array, "batch label"],
    num_labels: Int[Array, " batch"],
) -> tuple[Float[Array, " batch"], Bool[Array, " batch"]]:
    """Compute the negative log-likelihood of each transcript in nats, and whether its row is feasible.

    A row that has fewer frames than its transcript needs, or none at all, has loss and gradient zero.
    """
    feasible = (needed_frames(labels, num_labels) <= num_frames) & (num_frames > 0)
    time, length = logits.shape[1], labels.shape[1]
    # An infeasible row is computed as an empty transcript of empty speech, then left out.
    frames, count = jnp.where(feasible, num_frames, 0), jnp.where(feasible, num_labels, 0)
    losses = optax.ctc_loss(
        logits.astype(jnp.float32),
        (~valid_frames(frames, time)).astype(jnp.float32),
        labels,
        (~valid_frames(count, length)).astype(jnp.float32),
        blank_id=BLANK,
    )
    return jnp.where(feasible, losses, jnp.zeros_like(losses)), feasible


def recognizer(config: RecognizerConfig) -> Recognizer:
    """Build the recognizer of one configuration.

    The loss of a batch is its negative log-likelihood over its number of labels, in nats per label.
    """
    init_encoder, encode = frames_of(config)
    init_head, apply_head = bind(
        lambda key: CTCHead(config.feature_dim, config.head, key, config.model.compute_dtype)
    )

    def init(key):
        encoder_key, head_key = jax.random.split(key)
        return {"encoder": init_encoder(encoder_key), "head": init_head(head_key)}, initial_statistics(
            config.feature_dim, config.head
        )

    def forward(parameters, state, waveform, num_samples, dropout_keys: DropoutKeys | None):
        frames = encode(parameters["encoder"], waveform, num_samples, dropout_keys)
        logits, state = apply_head(
            parameters["head"],
            frames.last,
            frames.valid,
            state,
            training=dropout_keys is not None,
            dropout_keys=None if dropout_keys is None else dropout_keys.utterance,
        )
        return logits, config.frame_lengths(num_samples), state

    def loss_and_sums(logits, num_frames, batch: LabelledBatch) -> tuple[Float[Array, ""], Sums]:
        losses, feasible = ctc_losses(logits, num_frames, batch.labels, batch.num_labels)
        labels = jnp.where(feasible, batch.num_labels, 0).sum().astype(jnp.float32)
        total = losses.sum()
        rows = (batch.num_samples > 0).astype(jnp.float32)
        sums = {
            "loss": Total(total, labels),
            "infeasible": Total((rows * (1.0 - feasible.astype(jnp.float32))).sum(), rows.sum()),
            "audio_seconds": Total(
                batch.num_samples.sum().astype(jnp.float32) / SAMPLE_RATE_HZ, jnp.float32(1.0)
            ),
        }
        return total / jnp.maximum(labels, 1.0), jax.lax.stop_gradient(sums)

    def training_loss(parameters, state, batch: LabelledBatch, key, step):
        keys = DropoutKeys(utterance_keys(key, batch.utterance_id, Stream.DROPOUT), key)
        logits, num_frames, state = forward(parameters, state, batch.waveform, batch.num_samples, keys)
        loss, sums = loss_and_sums(logits, num_frames, batch)
        return loss, (state, sums)

    def value_and_grad(parameters, state, batch: LabelledBatch, key, step):
        gradients, (state, sums) = jax.grad(training_loss, has_aux=True)(parameters, state, batch, key, step)
        return gradients, state, sums

    def scores(parameters, state, waveform, num_samples):
        logits, num_frames, _ = forward(parameters, state, waveform, num_samples, None)
        return logits, num_frames

    def recognise(parameters, state, batch: LabelledBatch):
        logits, num_frames = scores(parameters, state, batch.waveform, batch.num_samples)
        _, sums = loss_and_sums(logits, num_frames, batch)
        return logits.argmax(-1).astype(jnp.int32), num_frames, sums

    def evaluate(parameters, state, batch: LabelledBatch, key):
        return recognise(parameters, state, batch)[2]

    def mean_loss(parameters, state, batch: LabelledBatch, key, step):
        loss, (_, sums) = training_loss(parameters, state, batch, key, step)
        return loss, sums

    objective = Objective(init, mean_loss, value_and_grad, evaluate, summarise)
    return Recognizer(objective, scores, recognise)


def summarise(sums: Sums) -> dict[str, float]:
    """Convert sums into nats per label, infeasible rows and audio seconds."""
    total, labels = (float(np.asarray(value)) for value in sums["loss"])
    return {
        "loss": total / labels if labels else float("nan"),
        "infeasible": float(np.asarray(sums["infeasible"].total)),
        "audio_seconds": float(np.asarray(sums["audio_seconds"].total)),
    }


def collapse(best: np.ndarray, num_frames: int) -> list[int]:
    """Decode one utterance greedily: merge repeats of the best token of every frame, and drop blanks."""
    tokens = np.asarray(best)[:num_frames]
    if not len(tokens):
        return []
    changed = np.concatenate(([True], tokens[1:] != tokens[:-1]))
    return [int(token) for token in tokens[changed] if token != BLANK]


def decode_batch(best: np.ndarray, num_frames: Sequence[int] | np.ndarray) -> list[list[int]]:
    """Decode a batch of best tokens [batch, time] greedily."""
    return [collapse(row, int(frames)) for row, frames in zip(best, num_frames, strict=True)]
