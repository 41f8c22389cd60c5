"""Audio files -> 16 kHz mono int16 waveforms."""

import io
from pathlib import Path

import numpy as np
import soundfile
import soxr

from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.truncation import is_truncated
from w2v_jax.errors import ClipError

# Peaks below this (-80 dBFS) count as silence.
SILENCE_PEAK = 1e-4
MAX_SECONDS = 3600.0
MIN_RATE_HZ, MAX_RATE_HZ = 4000, 768_000


def decode(path: Path, *, min_samples: int = 1, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """Decode a file (mp3, flac, wav, ogg; any rate, any channels) to 16 kHz mono int16.

    Args:
        path: the audio file.
        min_samples: fewest samples at 16 kHz; the model's receptive field.
        max_seconds: what a header may claim; a clip of a corpus is never an hour long.

    Returns:
        int16 [samples].

    Raises:
        ClipError: missing, undecodable, truncated, empty, silent, too short or too long.
    """
    if not path.is_file():
        raise ClipError("missing", f"no file {path.name}")
    return decode_bytes(path.read_bytes(), min_samples=min_samples, max_seconds=max_seconds)


def decode_bytes(data: bytes, *, min_samples: int = 1, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """As `decode`, from a file's content.

    Args:
        data: the file's bytes.
        min_samples: fewest samples at 16 kHz.
        max_seconds: what a header may claim.

    Returns:
        int16 [samples] at 16 kHz, mono.

    Raises:
        ClipError: undecodable, truncated, empty, silent, too short or too long.
    """
    if not data:
        raise ClipError("empty", "the file has no bytes")
    if is_truncated(data):  # before decoders complain on standard error
        raise ClipError("truncated", "the file ends before its container says it does")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate = file.samplerate
            # A header may claim anything.
            if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
                raise ClipError("undecodable", f"a rate of {rate} Hz")
            if file.frames > max_seconds * rate:
                raise ClipError("too long", f"{file.frames / rate:.0f} s, at most {max_seconds:g} s")
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, RuntimeError, ValueError, MemoryError) as error:
        raise ClipError("undecodable", _reason(error)) from error
    mono = samples.mean(axis=1, dtype=np.float32)
    if not len(mono):
        raise ClipError("empty", "no samples")
    if not np.isfinite(mono).all():
        raise ClipError("undecodable", "samples that are not finite")
    if np.abs(mono).max() < SILENCE_PEAK:
        raise ClipError("silent", f"peak below {SILENCE_PEAK}")
    if rate != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate, SAMPLE_RATE_HZ)
    if len(mono) < min_samples:
        raise ClipError("too short", f"{len(mono)} samples at 16 kHz, {min_samples} needed")
    return np.round(np.clip(mono, -1.0, 1.0) * 32767.0).astype(np.int16)


def _reason(error: Exception) -> str:
    """libsndfile's words, without the address of the buffer it read from."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    return text.partition(">: ")[2] or text if "<_io.BytesIO" in text else text


def to_float(samples: np.ndarray) -> np.ndarray:
    """int16 -> float32 in [-1, 1]."""
    return samples.astype(np.float32) / 32767.0
