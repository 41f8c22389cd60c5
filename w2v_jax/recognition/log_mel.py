"""Log-mel features at the encoder's frame rate, the baseline of linear probes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from w2v_jax.config import SAMPLE_RATE_HZ

WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
NUM_BANDS = 80
STACKED = 2  # windows of 10 ms side by side make the encoder's frames of 20 ms
FFT_SAMPLES = 512
FLOOR = 1e-6
FEATURE_DIM = NUM_BANDS * STACKED


def frame_lengths(num_samples: Int[Array, " batch"]) -> Int[Array, " batch"]:
    """Count the 20 ms frames of each clip; a clip that is too short has 0."""
    windows = jnp.maximum((num_samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1, 0)
    return windows // STACKED


def log_mel(waveform: Float[Array, "batch sample"]) -> Float[Array, "batch time feature"]:
    """Compute 80 log-mel bands of Hann windows of 25 ms every 10 ms; two windows make a frame of 20 ms."""
    windows = (waveform.shape[1] - WINDOW_SAMPLES) // HOP_SAMPLES + 1
    frames = windows // STACKED
    starts = np.arange(frames * STACKED)[:, None] * HOP_SAMPLES
    window = jnp.asarray(np.hanning(WINDOW_SAMPLES + 1)[:-1], jnp.float32)
    pieces = waveform[:, starts + np.arange(WINDOW_SAMPLES)[None, :]] * window[None, None, :]
    spectrum = jnp.abs(jnp.fft.rfft(pieces, FFT_SAMPLES))
    bands = jnp.einsum("bwf,fm->bwm", jnp.square(spectrum), jnp.asarray(mel_filters()))
    return jnp.log(bands + FLOOR).reshape(waveform.shape[0], frames, FEATURE_DIM)


@functools.cache
def mel_filters() -> np.ndarray:
    """Make triangular filters on O'Shaughnessy's mel scale, float32 [frequency, band], from 0 Hz to 8 kHz."""
    top = 2595.0 * np.log10(1.0 + SAMPLE_RATE_HZ / 2 / 700.0)
    corners_hz = 700.0 * (10.0 ** (np.linspace(0.0, top, NUM_BANDS + 2) / 2595.0) - 1.0)
    frequencies_hz = np.fft.rfftfreq(FFT_SAMPLES, 1.0 / SAMPLE_RATE_HZ)[:, None]
    low, centre, high = corners_hz[:-2], corners_hz[1:-1], corners_hz[2:]
    rising = (frequencies_hz - low) / (centre - low)
    falling = (high - frequencies_hz) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def normalised(
    features: Float[Array, "batch time feature"], valid: Array
) -> Float[Array, "batch time feature"]:
    """Normalise every feature to zero mean and unit variance over an utterance's valid frames."""
    share = valid.astype(features.dtype)[..., None]
    count = jnp.maximum(share.sum(1, keepdims=True), 1.0)
    mean = (features * share).sum(1, keepdims=True) / count
    variance = (jnp.square(features - mean) * share).sum(1, keepdims=True) / count
    return (features - mean) * jax.lax.rsqrt(variance + 1e-5) * share
