"""Log-mel spectra: a front end without parameters, and the baseline of probes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from w2v_jax.config import LOG_MEL_HOP_SAMPLES, LOG_MEL_WINDOW_SAMPLES, SAMPLE_RATE_HZ

NUM_BANDS = 80
STACKED = 2  # windows of 10 ms side by side make frames of 20 ms, as the convolutions do
FFT_SAMPLES = 512
FLOOR = 1e-6
FEATURE_DIM = NUM_BANDS * STACKED


def frame_lengths(num_samples: Int[Array, " batch"], stacked: int = STACKED) -> Int[Array, " batch"]:
    """Count the frames of each clip, `stacked` windows of 10 ms each; a clip that is too short has 0."""
    windows = jnp.maximum((num_samples - LOG_MEL_WINDOW_SAMPLES) // LOG_MEL_HOP_SAMPLES + 1, 0)
    return windows // stacked


def log_mel(
    waveform: Float[Array, "batch sample"], stacked: int = STACKED, bands: int = NUM_BANDS
) -> Float[Array, "batch time feature"]:
    """Compute log-mel bands of Hann windows of 25 ms every 10 ms, with neighbouring windows stacked.

    Args:
        waveform: 16 kHz mono.
        stacked: windows side by side in a frame.
        bands: mel bands from 0 Hz to 8 kHz.

    Returns:
        float32 [batch, time, stacked x bands]; the bands of a frame's first window come first.
    """
    windows = max((waveform.shape[1] - LOG_MEL_WINDOW_SAMPLES) // LOG_MEL_HOP_SAMPLES + 1, 0)
    frames = windows // stacked
    starts = np.arange(frames * stacked)[:, None] * LOG_MEL_HOP_SAMPLES
    window = jnp.asarray(np.hanning(LOG_MEL_WINDOW_SAMPLES + 1)[:-1], jnp.float32)
    pieces = waveform[:, starts + np.arange(LOG_MEL_WINDOW_SAMPLES)[None, :]] * window[None, None, :]
    spectrum = jnp.abs(jnp.fft.rfft(pieces, FFT_SAMPLES))
    # Codes are taken from these energies: they must not depend on a device's fast products.
    energies = jnp.einsum(
        "bwf,fm->bwm",
        jnp.square(spectrum),
        jnp.asarray(mel_filters(bands)),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.log(energies + FLOOR).reshape(waveform.shape[0], frames, stacked * bands)


@functools.cache
def mel_filters(bands: int = NUM_BANDS) -> np.ndarray:
    """Make triangular filters on O'Shaughnessy's mel scale, float32 [frequency, band], from 0 Hz to 8 kHz."""
    top = 2595.0 * np.log10(1.0 + SAMPLE_RATE_HZ / 2 / 700.0)
    corners_hz = 700.0 * (10.0 ** (np.linspace(0.0, top, bands + 2) / 2595.0) - 1.0)
    frequencies_hz = np.fft.rfftfreq(FFT_SAMPLES, 1.0 / SAMPLE_RATE_HZ)[:, None]
    low, centre, high = corners_hz[:-2], corners_hz[1:-1], corners_hz[2:]
    rising = (frequencies_hz - low) / (centre - low)
    falling = (high - frequencies_hz) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def normalised(
    features: Float[Array, "batch time feature"], valid: Bool[Array, "batch time"]
) -> Float[Array, "batch time feature"]:
    """Give each feature zero mean and unit variance over an utterance's valid frames; zero elsewhere."""
    share = valid.astype(features.dtype)[..., None]
    count = jnp.maximum(share.sum(1, keepdims=True), 1.0)
    mean = (features * share).sum(1, keepdims=True) / count
    variance = (jnp.square(features - mean) * share).sum(1, keepdims=True) / count
    return (features - mean) * jax.lax.rsqrt(variance + 1e-5) * share
