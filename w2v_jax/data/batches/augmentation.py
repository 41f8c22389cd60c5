"""Augmentation of waveforms for fine-tuning: other speeds, missing bands and missing chunks.

The defaults are SpeechBrain's: speeds of 95, 100 and 105 %, up to three bands and up to five chunks
dropped from every clip.
"""

import dataclasses

import numpy as np
import scipy.fft
import soxr
from jaxtyping import Float32

from w2v_jax.errors import UserError

EDGE = 0.25  # a dropped band fades over this share of its half width on either side, against ringing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Limits of `augment`.

    Args:
        speeds: one is drawn per clip; 1.05 is 5 % faster, and higher.
        max_bands: none to this many frequency bands are dropped.
        band_width: width of a band as a share of the Nyquist frequency (0.05: 400 Hz at 16 kHz).
        max_chunks: none to this many stretches are silenced, never more than half of a clip.
        chunk_samples: the shortest and the longest such stretch.

    Raises:
        UserError: values that no clip could be augmented with.
    """

    speeds: tuple[float, ...] = (0.95, 1.0, 1.05)
    max_bands: int = 3
    band_width: float = 0.05
    max_chunks: int = 5
    chunk_samples: tuple[int, int] = (1000, 2000)

    def __post_init__(self):
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise UserError(f"speeds={self.speeds}: give one or more from 0.5 to 2, such as 0.95 1.0 1.05")
        if self.max_bands < 0 or self.max_chunks < 0:
            raise UserError(
                f"max_bands={self.max_bands}, max_chunks={self.max_chunks}: give 0 (none) or more of each"
            )
        if not 0 < self.band_width < 1:
            raise UserError(f"band_width={self.band_width}: give a share of the Nyquist frequency, 0 to 1")
        if not 0 < self.chunk_samples[0] <= self.chunk_samples[1]:
            raise UserError(
                f"chunk_samples={self.chunk_samples}: give the shortest, above 0, then the longest"
            )

    @property
    def longest_stretch(self) -> float:
        """Compute how much a clip grows at most: n samples become at most ceil(n * longest_stretch) + 1."""
        return 1 / min(self.speeds)


NONE = Augmentation(speeds=(1.0,), max_bands=0, max_chunks=0)


def augment(
    samples: Float32[np.ndarray, "samples"], rng: np.random.Generator, config: Augmentation
) -> Float32[np.ndarray, "augmented"]:
    """Change the speed, then drop bands, then chunks, as drawn from `rng`.

    Args:
        samples: a waveform at any rate; it is not written to, but comes back itself where nothing changes.
        rng: the same state gives the same result.
        config: what to draw from.

    Returns:
        float32, at most ceil(len(samples) * config.longest_stretch) + 1 samples.
    """
    speed = config.speeds[int(rng.integers(len(config.speeds)))]
    return drop_chunks(drop_bands(change_speed(samples, speed), rng, config), rng, config)


def change_speed(samples: Float32[np.ndarray, "samples"], speed: float) -> Float32[np.ndarray, "changed"]:
    """Play at `speed` by resampling: len(samples) / speed samples, rounded, and pitch times speed."""
    if speed == 1 or not len(samples):
        return samples
    return soxr.resample(samples, speed, 1.0, quality="MQ")


def drop_bands(
    samples: Float32[np.ndarray, "samples"], rng: np.random.Generator, config: Augmentation
) -> Float32[np.ndarray, "samples"]:
    """Remove none to `max_bands` frequency bands at centres drawn anywhere below Nyquist; no phase shift."""
    if not config.max_bands or not len(samples):
        return samples
    centres = rng.uniform(size=int(rng.integers(config.max_bands, endpoint=True)))
    padded = scipy.fft.next_fast_len(len(samples), real=True) or len(samples)
    spectrum = np.asarray(scipy.fft.rfft(samples, padded))  # complex64
    frequencies = np.arange(len(spectrum), dtype=np.float32) * np.float32(2 / padded)  # Nyquist is 1
    half_width = config.band_width / 2
    for centre in centres.tolist():
        first, last = np.searchsorted(
            frequencies, [centre - half_width * (1 + EDGE), centre + half_width * (1 + EDGE)]
        )
        distance = np.abs(frequencies[first:last] - centre) / half_width
        fade = np.clip((distance - 1) / EDGE, 0, 1)
        spectrum[first:last] *= np.sin(np.pi / 2 * fade) ** 2
    return np.asarray(scipy.fft.irfft(spectrum, padded))[: len(samples)]


def drop_chunks(
    samples: Float32[np.ndarray, "samples"], rng: np.random.Generator, config: Augmentation
) -> Float32[np.ndarray, "samples"]:
    """Silence none to `max_chunks` stretches; they get shorter where they would exceed half of the clip."""
    if not config.max_chunks:
        return samples
    shortest, longest = config.chunk_samples
    remaining = len(samples) // 2
    kept = samples.copy()
    for _ in range(int(rng.integers(config.max_chunks, endpoint=True))):
        length = min(int(rng.integers(shortest, longest, endpoint=True)), remaining)
        start = int(rng.integers(len(samples) - length, endpoint=True))
        kept[start : start + length] = 0
        remaining -= length
    return kept
