"""Probes that write characters: linear maps and small networks of frozen frames, trained with CTC.

All probes of an encoder are trained side by side in one program: one for each layer, and one for the learnt
sum of all layers. Each has its own loss, so that none changes another.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from w2v_jax.data.batches.buckets import Buckets, Choice
from w2v_jax.model.binding import Parameters
from w2v_jax.model.frame_counts import valid_frames
from w2v_jax.recognition.ctc import BLANK, ctc_losses, decode_batch
from w2v_jax.recognition.heads import INITIAL_BLANKS

Kind = Literal["linear", "mlp", "weighted_sum"]
CONTEXT_FRAMES = 3  # a frame and its neighbour on either side
HIDDEN = 128
EPOCHS, LEAST_UPDATES = 25, 400
LEARNING_RATE, WARMUP_SHARE = 5e-3, 0.05
BATCH_FRAMES, SHAPES = 2400, 5  # frames of a batch; shapes of batches, which are compiled one by one


class Standard(NamedTuple):
    """Mean and standard deviation of every feature of every layer, float32 [layer, feature]."""

    mean: np.ndarray
    deviation: np.ndarray


class Batch(NamedTuple):
    """Frames of some clips, of one shape; rows without a clip have no frames.

    Attributes:
        frames: float16 [clip, layer, time, feature].
        num_frames: int32 [clip].
        labels: int32 [clip, label].
        num_labels: int32 [clip].
    """

    frames: np.ndarray
    num_frames: np.ndarray
    labels: np.ndarray
    num_labels: np.ndarray


class CharacterProbes(NamedTuple):
    """Trained probes of all layers.

    Attributes:
        parameters: NumPy, by kind.
        standard: standardises the frames.
        updates: how many there were.
    """

    parameters: Mapping[Kind, Parameters]
    standard: Standard
    updates: int

    def transcribe(self, frames: Sequence[np.ndarray]) -> dict[Kind, list[list[list[int]]]]:
        """Decode clips greedily.

        Args:
            frames: of each clip, float16 [layer, time, feature].

        Returns:
            By kind, the tokens of each probe and clip; probes in the order of the layers, or one for the sum.
        """
        lengths = np.array([clip.shape[1] for clip in frames])
        buckets = _buckets([f"{number:08d}" for number in range(len(frames))], lengths, ())
        found: dict[Kind, list[list[list[int]]]] = {}
        for choice in buckets.in_order():
            batch = _batch(frames, [[] for _ in frames], choice, buckets)
            for kind, best in _best_tokens()(self.parameters, self.standard, batch).items():
                probes = found.setdefault(kind, [[[] for _ in frames] for _ in best])
                for probe, rows in zip(probes, np.asarray(best), strict=True):
                    count = len(choice.indices)
                    texts = decode_batch(rows[:count], batch.num_frames[:count])
                    for index, text in zip(choice.indices, texts, strict=True):
                        probe[int(index)] = text
        return found


def train(
    frames: Sequence[np.ndarray],
    labels: Sequence[list[int]],
    paths: Sequence[str],
    kinds: Sequence[Kind],
    num_tokens: int,
    seed: int,
) -> CharacterProbes:
    """Train probes for a fixed number of epochs.

    Adam's rate rises and then falls as a cosine. Few clips make short epochs, of which there are then more.

    Args:
        frames: of each training clip, float16 [layer, time, feature]; each has as many as CTC needs.
        labels: the token ids of each clip.
        paths: names of the clips, which order them.
        kinds: linear: a linear map of each layer. mlp: a network with one hidden layer, of each layer.
            weighted_sum: a linear map of the layers' sum, weighted by a softmax (SUPERB: 2105.01051).
        num_tokens: the blank included.
        seed: of the networks and of the batches.
    """
    standard = _standard(frames)
    buckets = _buckets(paths, np.array([clip.shape[1] for clip in frames]), (seed,))
    updates = max(EPOCHS * buckets.steps_per_epoch, LEAST_UPDATES)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, LEARNING_RATE, max(1, round(WARMUP_SHARE * updates)), updates, end_value=0.01 * LEARNING_RATE
    )
    parameters = initial_parameters(kinds, standard.mean.shape, num_tokens, seed)
    state = optax.scale_by_adam().init(parameters)
    for number in range(updates):
        choice = buckets[number]
        batch = _batch(frames, labels, choice, buckets)
        pace = jnp.float32(rate(number))
        parameters, state = _update()(parameters, state, standard, batch, pace)
    return CharacterProbes(jax.device_get(parameters), standard, updates)


def initial_parameters(
    kinds: Sequence[Kind], shape: tuple[int, ...], num_tokens: int, seed: int
) -> dict[Kind, Parameters]:
    """Make the parameters before the first update; linear maps begin at zero.

    Args:
        kinds, num_tokens, seed: as in `train`.
        shape: layers and features.
    """
    layers, size = shape
    # Most frames are blank: the initial bias says so, which spares updates.
    bias = np.zeros(num_tokens, np.float32)
    bias[BLANK] = math.log(INITIAL_BLANKS * (num_tokens - 1))
    biases = np.tile(bias, (layers, 1))
    draws = np.random.default_rng((seed, 1))
    hidden = draws.normal(0.0, (2.0 / (CONTEXT_FRAMES * size)) ** 0.5, (layers, CONTEXT_FRAMES, size, HIDDEN))
    made: dict[Kind, dict[str, np.ndarray]] = {
        "linear": {"output": np.zeros((layers, CONTEXT_FRAMES, size, num_tokens)), "bias": biases},
        "mlp": {
            "hidden": hidden,
            "hidden_bias": np.zeros((layers, HIDDEN)),
            "output": draws.normal(0.0, HIDDEN**-0.5, (layers, HIDDEN, num_tokens)),
            "bias": biases,
        },
        "weighted_sum": {
            "layers": np.zeros(layers),
            "output": np.zeros((1, CONTEXT_FRAMES, size, num_tokens)),
            "bias": bias[None],
        },
    }
    return {
        kind: {name: jnp.asarray(value, jnp.float32) for name, value in made[kind].items()} for kind in kinds
    }


def layer_weights(probes: CharacterProbes) -> list[float]:
    """Give the shares of the layers in the learnt sum; they add up to 1."""
    return [
        float(share) for share in jax.nn.softmax(jnp.asarray(probes.parameters["weighted_sum"]["layers"]))
    ]


def scores(
    parameters: Mapping[Kind, Parameters], x: Float[Array, "clip layer time feature"]
) -> dict[Kind, Float[Array, "probe clip time token"]]:
    """Compute the logits of all probes.

    Args:
        parameters: by kind.
        x: standardised frames; zero where there is no frame.
    """
    layers = jnp.moveaxis(x, 1, 0)
    found: dict[Kind, Array] = {}
    for kind, held in parameters.items():
        if kind == "mlp":
            hidden = _in_context(layers, held["hidden"]) + held["hidden_bias"][:, None, None]
            logits = jnp.einsum("lbth,lhv->lbtv", jax.nn.relu(hidden), held["output"])
        elif kind == "linear":
            logits = _in_context(layers, held["output"])
        else:
            summed = jnp.einsum("l,lbtf->btf", jax.nn.softmax(held["layers"]), layers)
            logits = _in_context(summed[None], held["output"])
        found[kind] = logits + held["bias"][:, None, None]
    return found


def _in_context(
    x: Float[Array, "layer clip time feature"], weights: Float[Array, "layer context feature output"]
) -> Float[Array, "layer clip time output"]:
    """Apply a linear map to every frame and its neighbours; beyond the clip they are zero."""
    each = jnp.einsum("lbtf,lcfo->clbto", x, weights)
    # The map of the earlier neighbour moves one frame on, that of the later one back.
    earlier = jnp.pad(each[0, :, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0)))
    later = jnp.pad(each[2, :, :, 1:], ((0, 0), (0, 0), (0, 1), (0, 0)))
    return each[1] + earlier + later


def _standardised(standard: Standard, batch: Batch) -> Array:
    """Standardise the frames of a batch, float32; zero where there is no frame."""
    x = jnp.asarray(batch.frames).astype(jnp.float32)
    mean, deviation = (part[None, :, None] for part in standard)
    valid = valid_frames(jnp.asarray(batch.num_frames), x.shape[2])
    return jnp.where(valid[:, None, :, None], (x - mean) / deviation, 0.0)


def _standard(frames: Sequence[np.ndarray]) -> Standard:
    """Measure the training frames; a constant feature keeps a deviation of 1."""
    count, shape = sum(clip.shape[1] for clip in frames), (frames[0].shape[0], frames[0].shape[2])
    total, squares = np.zeros(shape), np.zeros(shape)
    for clip in frames:
        total += clip.sum(1, dtype=np.float64)
    mean = total / count
    for clip in frames:
        squares += np.square(clip - mean[:, None]).sum(1)
    variance = squares / count
    deviation = np.where(variance > 1e-12, np.sqrt(variance), 1.0)
    return Standard(mean.astype(np.float32), deviation.astype(np.float32))


def _buckets(paths: Sequence[str], lengths: np.ndarray, identity: tuple[int, ...]) -> Buckets:
    most = min(BATCH_FRAMES, int(lengths.sum()))
    return Buckets(paths, lengths, batch_samples=most, num_buckets=SHAPES, identity=identity)


def _batch(
    frames: Sequence[np.ndarray], labels: Sequence[list[int]], choice: Choice, buckets: Buckets
) -> Batch:
    """Collect the chosen clips; the batches of a bucket have one shape."""
    layers, _, size = frames[0].shape
    longest = max(len(labels[int(index)]) for index in buckets.members(choice.bucket))
    batch = Batch(
        np.zeros((choice.rows, layers, buckets.bucket_samples[choice.bucket], size), np.float16),
        np.zeros(choice.rows, np.int32),
        np.zeros((choice.rows, max(longest, 1)), np.int32),
        np.zeros(choice.rows, np.int32),
    )
    for row, index in enumerate(choice.indices):
        clip, own = frames[int(index)], labels[int(index)]
        batch.frames[row, :, : clip.shape[1]] = clip
        batch.num_frames[row] = clip.shape[1]
        batch.labels[row, : len(own)] = own
        batch.num_labels[row] = len(own)
    return batch


@functools.cache
def _best_tokens() -> Callable:
    """Make the function that finds the best token of every frame, int [probe, clip, time] by kind."""

    def best(parameters, standard, batch):
        return {
            kind: logits.argmax(-1)
            for kind, logits in scores(parameters, _standardised(standard, batch)).items()
        }

    return jax.jit(best)


@functools.cache
def _update() -> Callable:
    """Make the update of all probes: (parameters, state, standard, batch, rate) -> (parameters, state)."""

    def loss(parameters, standard, batch):
        logits = jnp.concatenate(list(scores(parameters, _standardised(standard, batch)).values()))
        probes, clips = logits.shape[:2]
        num_frames, labels, num_labels = (
            jnp.tile(jnp.asarray(part), (probes, *(1,) * (part.ndim - 1))) for part in batch[1:]
        )
        flat = logits.reshape(probes * clips, *logits.shape[2:])
        losses, _ = ctc_losses(flat, num_frames, labels, num_labels)
        # The probes share no parameters: the gradient of the sum is that of each one's nats per label.
        return losses.sum() / jnp.maximum(batch.num_labels.sum(), 1).astype(jnp.float32)

    def update(parameters, state, standard, batch, rate):
        gradients = jax.grad(loss)(parameters, standard, batch)
        directions, state = optax.scale_by_adam().update(gradients, state, parameters)
        return jax.tree.map(lambda value, step: value - rate * step, parameters, directions), state

    def run(*arguments):
        # optax's own arithmetic fails under strict dtype and rank promotion.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return jitted(*arguments)

    jitted = jax.jit(update)
    return run
