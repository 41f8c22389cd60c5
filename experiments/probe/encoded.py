"""Clips as a frozen encoder hears them: every layer's frames, pooled to one vector a clip."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
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

# (waveform [clip, sample], num_samples [clip]) -> pooled [layer, clip, feature].
Pooled = Callable[[np.ndarray, np.ndarray], jax.Array]


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
    run, names = _encoder(evaluated(config))
    own = {name: parameters[name] for name in names}
    found = _of_all(lambda waveform, num_samples: run(own, waveform, num_samples), clips)
    return dict(zip(layer_names(config), found, strict=True))


def log_mel_features(clips: Sequence[Utterance]) -> dict[str, np.ndarray]:
    """Pool log-mel frames of 20 ms, 80 bands in each half.

    Returns:
        As `encoder_features`. The layers are three forms, so that the best is the baseline: as computed; with
        the mean and the deviation of an utterance's values taken away; and with those of each band.
    """
    return dict(zip(LOG_MEL_FORMS, _of_all(_log_mel(), clips), strict=True))


def evaluated(config: ModelConfig) -> ModelConfig:
    """Change what would make a clip's frames depend on the padding of its batch, and drop nothing."""
    return config.without_dropout().replace(
        masked_group_norm=True, rematerialise_cnn=False, rematerialise_layers=False
    )


@functools.cache
def _encoder(config: ModelConfig) -> tuple[Callable, tuple[str, ...]]:
    make, apply = bind(lambda key: Encoder(config, key))
    names = tuple(jax.eval_shape(make, jax.random.key(0)))

    def run(parameters: Parameters, waveform: jax.Array, num_samples: jax.Array) -> jax.Array:
        encoded, out = apply(parameters, waveform, num_samples, method="encode")
        frames = frame_lengths(num_samples, config)
        layers = [encoded.projected, *out["hidden_layers"]]
        if config.pre_norm:
            layers.append(encoded.context)
        return jnp.stack([segment_means(layer, frames) for layer in layers])

    return jax.jit(run), names


@functools.cache
def _log_mel() -> Pooled:
    def run(waveform: jax.Array, num_samples: jax.Array) -> jax.Array:
        features, frames = log_mel.log_mel(waveform), log_mel.frame_lengths(num_samples)
        valid = valid_frames(frames, features.shape[1])
        # All values of an utterance as those of one feature.
        flat = features.reshape(len(features), -1, 1)
        whole = log_mel.normalised(flat, jnp.repeat(valid, features.shape[2], axis=1)).reshape(features.shape)
        forms = (features, whole, log_mel.normalised(features, valid))
        return jnp.stack([segment_means(form, frames) for form in forms])

    return jax.jit(run)


def _of_all(pooled: Pooled, clips: Sequence[Utterance]) -> np.ndarray:
    """Run batches of clips of like length; float32 [layer, clip, feature]."""
    num_samples_of = lengths(clips)
    buckets = Buckets(
        column(clips, "path"),
        num_samples_of,
        batch_samples=min(BATCH_SECONDS * SAMPLE_RATE_HZ, int(num_samples_of.sum())),
        num_buckets=SHAPES,
        identity=(0,),
    )
    found: np.ndarray | None = None
    for choice in buckets.in_order():
        waveform = np.zeros((choice.rows, buckets.bucket_samples[choice.bucket]), np.float32)
        num_samples = np.zeros(choice.rows, np.int32)
        for row, index in enumerate(choice.indices):
            samples = to_float(clips[int(index)].samples)
            waveform[row, : len(samples)] = samples
            num_samples[row] = len(samples)
        batch = np.asarray(pooled(waveform, num_samples))
        if found is None:
            found = np.zeros((len(batch), len(clips), batch.shape[-1]), np.float32)
        found[:, choice.indices] = batch[:, : len(choice.indices)]
    assert found is not None
    return found
