"""Clips as a frozen encoder hears them: every layer's frames, or one vector of them a clip."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from w2v_jax.config import LOG_MEL_HOP_SAMPLES, SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.data.audio import to_float
from w2v_jax.data.batches.buckets import Buckets
from w2v_jax.data.common_voice import Utterance, column, lengths
from w2v_jax.model import log_mel
from w2v_jax.model.binding import Parameters, bind
from w2v_jax.model.frame_counts import frame_lengths, valid_frames
from w2v_jax.model.wav2vec2 import Encoder
from w2v_jax.recognition.pooling import segment_means

BATCH_SECONDS, SHAPES = 64, 4
LOG_MEL = "log-mel"
LOG_MEL_FORMS = ("as computed", "utterance normalised", "bands normalised")

# Characters are written from frames of 40 ms: shorter frames stand side by side. So every arm has as many
# frames, and as much speech around each. Speech has fewer than 25 characters a second: one output a frame
# is enough.
CHARACTER_FRAME_SAMPLES = 640
# float16 holds no larger value; frames that are larger are cut.
LARGEST = float(np.finfo(np.float16).max)

# (waveform [clip, sample], num_samples [clip]) -> (frames [layer, clip, time, feature], num_frames [clip]).
Layers = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class ClipFrames(NamedTuple):
    """Frames of 40 ms of clips.

    Attributes:
        layers: names.
        of_clips: of each clip, float16 [layer, time, feature].
    """

    layers: tuple[str, ...]
    of_clips: list[np.ndarray]


def layer_names(config: ModelConfig) -> tuple[str, ...]:
    """Name the layers that `encoder_features` gives, in their order."""
    names = ("input", *(f"layer {number}" for number in range(1, config.num_layers + 1)))
    return (*names, "final norm") if config.pre_norm else names


def encoder_features(
    config: ModelConfig, parameters: Parameters, clips: Sequence[Utterance]
) -> dict[str, np.ndarray]:
    """Pool every layer's frames of every clip.

    Args:
        config: of the encoder.
        parameters: of the encoder; parts that only pre-training has are not used.
        clips: none shorter than the encoder's receptive field.

    Returns:
        By layer, float32 [clip, segments x feature], in the order of the clips: the input of the transformer,
        the output of each layer, and that of the last norm where the layers normalise their inputs.
    """
    return dict(zip(layer_names(config), _pooled(_hearing(config, parameters), clips), strict=True))


def log_mel_features(clips: Sequence[Utterance]) -> dict[str, np.ndarray]:
    """Pool log-mel frames of 20 ms, 80 bands in each half.

    Returns:
        As `encoder_features`. The layers are three forms, so that the best is the baseline: as computed; with
        the mean and the deviation of an utterance's values taken away; and with those of each band.
    """
    return dict(zip(LOG_MEL_FORMS, _pooled(_log_mel, clips), strict=True))


def encoder_frames(config: ModelConfig, parameters: Parameters, clips: Sequence[Utterance]) -> ClipFrames:
    """Compute frames of 40 ms of the layers of `encoder_features`; arguments as there."""
    found = _framed(_hearing(config, parameters), clips, _side_by_side(config))
    return ClipFrames(layer_names(config), found)


def log_mel_frames(clips: Sequence[Utterance]) -> ClipFrames:
    """Compute log-mel frames of 40 ms, 80 bands in each quarter, in the forms of `log_mel_features`."""
    return ClipFrames(LOG_MEL_FORMS, _framed(_log_mel, clips, _side_by_side(None)))


def num_character_frames(config: ModelConfig | None, num_samples: np.ndarray) -> np.ndarray:
    """Count the frames of 40 ms of clips, from an encoder or, for None, from log-mel; int [clip]."""
    counted = jnp.asarray(num_samples, jnp.int32)
    frames = log_mel.frame_lengths(counted) if config is None else frame_lengths(counted, config)
    return np.asarray(frames) // _side_by_side(config)


def evaluated(config: ModelConfig) -> ModelConfig:
    """Change what would make a clip's frames depend on the padding of its batch, and drop nothing."""
    return config.without_dropout().replace(
        masked_group_norm=True, rematerialise_cnn=False, rematerialise_layers=False
    )


def _side_by_side(config: ModelConfig | None) -> int:
    """Count the frames that stand side by side in 40 ms; longer frames stay."""
    samples = log_mel.STACKED * LOG_MEL_HOP_SAMPLES if config is None else config.frame_samples
    return max(1, CHARACTER_FRAME_SAMPLES // samples)


def _hearing(config: ModelConfig, parameters: Parameters) -> Layers:
    run, names = _encoder(evaluated(config))
    return functools.partial(run, {name: parameters[name] for name in names})


@functools.cache
def _encoder(config: ModelConfig) -> tuple[Callable, tuple[str, ...]]:
    make, apply = bind(lambda key: Encoder(config, key))
    names = tuple(jax.eval_shape(make, jax.random.key(0)))

    @jax.jit
    def run(
        parameters: Parameters, waveform: jax.Array, num_samples: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        encoded, out = apply(parameters, waveform, num_samples, method="encode")
        layers = [encoded.projected, *out["hidden_layers"]]
        if config.pre_norm:
            layers.append(encoded.context)
        return jnp.stack(layers), frame_lengths(num_samples, config)

    return run, names


@jax.jit
def _log_mel(waveform: jax.Array, num_samples: jax.Array) -> tuple[jax.Array, jax.Array]:
    features, frames = log_mel.log_mel(waveform), log_mel.frame_lengths(num_samples)
    valid = valid_frames(frames, features.shape[1])
    # All values of an utterance as those of one feature.
    flat = features.reshape(len(features), -1, 1)
    whole = log_mel.normalised(flat, jnp.repeat(valid, features.shape[2], axis=1)).reshape(features.shape)
    return jnp.stack([features, whole, log_mel.normalised(features, valid)]), frames


@jax.jit
def _means(layers: jax.Array, num_frames: jax.Array) -> jax.Array:
    return jnp.stack([segment_means(layer, num_frames) for layer in layers])


def _pooled(heard: Layers, clips: Sequence[Utterance]) -> np.ndarray:
    """Pool batches of clips of like length; float32 [layer, clip, feature]."""
    found: np.ndarray | None = None
    for indices, waveform, num_samples in _batches(clips):
        batch = np.asarray(_means(*heard(waveform, num_samples)))
        if found is None:
            found = np.zeros((len(batch), len(clips), batch.shape[-1]), np.float32)
        found[:, indices] = batch[:, : len(indices)]
    assert found is not None
    return found


def _framed(heard: Layers, clips: Sequence[Utterance], side_by_side: int) -> list[np.ndarray]:
    """Compute every clip's frames, so many of them side by side; float16 [layer, time, feature]."""
    found: list[np.ndarray] = [np.zeros(0)] * len(clips)
    for indices, waveform, num_samples in _batches(clips):
        layers, num_frames = map(np.asarray, heard(waveform, num_samples))
        for row, index in enumerate(indices):
            time = int(num_frames[row]) // side_by_side
            own = layers[:, row, : time * side_by_side].reshape(len(layers), time, -1)
            found[int(index)] = np.clip(own, -LARGEST, LARGEST).astype(np.float16)
    return found


def _batches(clips: Sequence[Utterance]) -> Iterator[tuple[np.ndarray, jax.Array, jax.Array]]:
    """Give the indices of batches of clips of like length, their waveforms and numbers of samples."""
    num_samples_of = lengths(clips)
    buckets = Buckets(
        column(clips, "path"),
        num_samples_of,
        batch_samples=min(BATCH_SECONDS * SAMPLE_RATE_HZ, int(num_samples_of.sum())),
        num_buckets=SHAPES,
        identity=(0,),
    )
    for choice in buckets.in_order():
        waveform = np.zeros((choice.rows, buckets.bucket_samples[choice.bucket]), np.float32)
        num_samples = np.zeros(choice.rows, np.int32)
        for row, index in enumerate(choice.indices):
            samples = to_float(clips[int(index)].samples)
            waveform[row, : len(samples)] = samples
            num_samples[row] = len(samples)
        yield choice.indices, jnp.asarray(waveform), jnp.asarray(num_samples)
