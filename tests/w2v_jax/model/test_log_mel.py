"""Log-mel features: the bands that a tone falls into, and normalisation by utterance."""

import jax.numpy as jnp
import numpy as np
import pytest

from w2v_jax.config import SAMPLE_RATE_HZ, TINY
from w2v_jax.model import log_mel


def mel(frequency_hz):
    return 2595 * np.log10(1 + frequency_hz / 700)


@pytest.mark.parametrize("frequency_hz", [300.0, 1000.0, 4000.0])
def test_a_tone_is_loudest_in_its_own_band(frequency_hz):
    waveform = np.sin(2 * np.pi * frequency_hz * np.arange(8000) / SAMPLE_RATE_HZ)
    features = np.asarray(log_mel.log_mel(jnp.asarray(waveform[None], jnp.float32)))
    centres = mel(8000.0) * np.arange(1, 81) / 81
    expected = int(np.abs(centres - mel(frequency_hz)).argmin())
    loudest = features.reshape(-1, 80).argmax(-1)
    assert np.abs(loudest - expected).max() <= 1
    assert features.shape == (1, 24, 160)


def test_windows_equal_a_slow_fourier_transform():
    waveform = np.random.default_rng(0).standard_normal(1200).astype(np.float32)
    features = np.asarray(log_mel.log_mel(jnp.asarray(waveform[None])))[0]
    n = np.arange(400)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / 400)
    for window in range(4):
        piece = waveform[160 * window : 160 * window + 400].astype(np.float64) * hann
        waves = np.exp(-2j * np.pi * np.arange(257)[:, None] * n[None] / 512)
        power = np.abs(waves @ piece) ** 2
        expected = np.log(power @ log_mel.mel_filters().astype(np.float64) + 1e-6)
        frame, half = divmod(window, 2)
        np.testing.assert_allclose(features[frame, 80 * half : 80 * (half + 1)], expected, rtol=1e-3)


@pytest.mark.parametrize("num_samples", [0, 100, 399, 400, 559, 560, 719, 720, 880, 16_000])
def test_frames_are_counted_as_they_are_made_and_keep_pace_with_the_encoder(num_samples):
    (frames,) = log_mel.frame_lengths(jnp.array([num_samples])).tolist()
    made = log_mel.log_mel(jnp.zeros((1, num_samples))).shape[1] if num_samples >= 400 else 0
    assert frames == made
    assert abs(frames - TINY.num_frames(num_samples)) <= 1


def test_features_are_normalised_over_valid_frames():
    rng = np.random.default_rng(1)
    features = rng.standard_normal((2, 7, 5)).astype(np.float32) * 3 + 4
    valid = np.arange(7)[None] < np.array([7, 4])[:, None]
    found = np.asarray(log_mel.normalised(jnp.asarray(features), jnp.asarray(valid)))
    for row, frames in enumerate((7, 4)):
        held = features[row, :frames].astype(np.float64)
        expected = (held - held.mean(0)) / np.sqrt(held.var(0) + 1e-5)
        np.testing.assert_allclose(found[row, :frames], expected, atol=1e-4)
        assert not found[row, frames:].any()
