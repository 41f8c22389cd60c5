"""Decode audio files to 16 kHz mono int16 waveforms."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import soundfile
import soxr

from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data import containers, git_lfs
from w2v_jax.errors import ClipError

# Peaks below this (-80 dBFS) count as silence.
SILENCE_PEAK = 1e-4
MAX_SECONDS = 3600.0
MIN_RATE_HZ, MAX_RATE_HZ = 4000, 768_000
# Others can be decoded, but nothing here tells whether such a file is whole.
CHECKED_FORMATS = ("WAV", "WAVEX", "RF64", "AIFF", "FLAC", "OGG", "MP3")
# A mix this much softer than a channel (12 dB) has lost it to a channel of opposite phase. One silent
# channel beside a loud one costs 6 dB.
CANCELLED = 0.25
# Floats with such peaks are 16-bit numbers that nobody divided by 32768. Lower peaks may also be those of
# 8-bit numbers.
SMALLEST_INT16_PEAK, LARGEST_INT16_PEAK = 256.0, 65536.0
SMALLEST_INT8_PEAK = 64.0
UINT8_ZERO = (112.0, 144.0)  # the median of unsigned 8-bit numbers
# Few samples beyond full scale are clicks: the rest keeps its level. Division costs at most 12 dB.
CLICK_PERCENT, CLICK_PEAK = 99.0, 4.0


@dataclasses.dataclass(frozen=True)
class Recording:
    """A decoded file.

    Attributes:
        samples: int16 [samples] at 16 kHz, mono.
        changes: what was changed on the way, as (reason, detail); empty for most files.
    """

    samples: np.ndarray
    changes: tuple[tuple[str, str], ...] = ()


def decode(path: Path, *, min_samples: int = 1, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """Decode a file (mp3, flac, wav, ogg; any rate, any channels) to 16 kHz mono int16.

    Args:
        path: the audio file.
        min_samples: fewest samples at 16 kHz; the model's receptive field.
        max_seconds: longest file; a clip of a corpus is never an hour long.

    Returns:
        int16 [samples].

    Raises:
        ClipError: missing, or as `record`.
    """
    return read(path, min_samples=min_samples, max_seconds=max_seconds).samples


def read(path: Path, *, min_samples: int = 1, max_seconds: float = MAX_SECONDS) -> Recording:
    """Decode a file as `decode` does, and tell what was changed.

    Raises:
        ClipError: missing, or as `record`.
    """
    if not path.is_file():
        raise ClipError("missing", f"no file {path.name}")
    return record(path.read_bytes(), min_samples=min_samples, max_seconds=max_seconds)


def decode_bytes(data: bytes, *, min_samples: int = 1, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """Decode a file's content as `decode` does.

    Args:
        data: the file's bytes.
        min_samples: fewest samples at 16 kHz.
        max_seconds: longest file.

    Returns:
        int16 [samples] at 16 kHz, mono.

    Raises:
        ClipError: as `record`.
    """
    return record(data, min_samples=min_samples, max_seconds=max_seconds).samples


def record(data: bytes, *, min_samples: int = 1, max_seconds: float = MAX_SECONDS) -> Recording:
    """Decode a file's content to the end, and tell what was changed.

    Args:
        data: the file's bytes.
        min_samples: fewest samples at 16 kHz.
        max_seconds: longest file.

    Raises:
        ClipError: undecodable, truncated, wrong header, empty, silent, too short, too long, or a Git LFS
            pointer.
    """
    if not data:
        raise ClipError("empty", "the file has no bytes")
    if data.startswith(git_lfs.POINTER):
        raise ClipError("Git LFS pointer", git_lfs.ADVICE)
    if data[:2] in containers.UTF16_MARKS:  # libsndfile takes the first one for a kind of mp3
        raise ClipError("undecodable", "text in UTF-16, no audio")
    streams = containers.streams(data)
    changes: list[tuple[str, str]] = []
    if len(streams) > 1:
        changes.append(("joined", f"{len(streams)} files one after the other"))
    changes += [("damaged", stream.damage) for stream in streams if stream.damage]
    seconds_left = max_seconds
    waveforms = []
    for stream in streams:
        samples, rate = _decode(stream, seconds_left, max_seconds)
        seconds_left -= len(samples) / rate
        mono = _mix(samples, changes)
        waveforms.append(mono if rate == SAMPLE_RATE_HZ else soxr.resample(mono, rate, SAMPLE_RATE_HZ))
    waveform = waveforms[0] if len(waveforms) == 1 else np.concatenate(waveforms)
    if not len(waveform):
        raise ClipError("empty", "no samples")
    waveform = _scale(waveform, changes)
    if len(waveform) < min_samples:
        raise ClipError("too short", f"{len(waveform)} samples at 16 kHz, {min_samples} needed")
    return Recording(np.round(waveform * 32767.0).astype(np.int16), tuple(dict.fromkeys(changes)))


def _decode(stream: containers.Stream, seconds_left: float, max_seconds: float) -> tuple[np.ndarray, int]:
    """Decode all samples of a stream, float32 [sample, channel]; return them and their rate in Hz."""
    try:
        with soundfile.SoundFile(io.BytesIO(stream.data)) as file:
            rate = file.samplerate
            # A header may claim anything.
            if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
                raise ClipError("undecodable", f"a rate of {rate} Hz")
            if file.format not in CHECKED_FORMATS:
                raise ClipError("undecodable", f"a {file.format} file: convert it to wav, flac, mp3 or ogg")
            if file.frames > seconds_left * rate:
                raise ClipError("too long", f"{file.frames / rate:.0f} s, at most {max_seconds:g} s")
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, RuntimeError, ValueError, MemoryError) as error:
        known = containers.foreign_format(stream.data)
        raise ClipError("undecodable", known or _reason(error)) from error
    if len(samples) < stream.fewest_samples:
        raise ClipError("truncated", f"{len(samples)} of {stream.fewest_samples} samples can be decoded")
    if not np.isfinite(samples).all():
        raise ClipError("undecodable", "samples that are not finite")
    return samples, rate


def _mix(samples: np.ndarray, changes: list[tuple[str, str]]) -> np.ndarray:
    """Mix float32 [sample, channel] to [sample]: the mean, or the loudest channel where channels cancel."""
    mono = samples.mean(axis=1, dtype=np.float32)
    if samples.shape[1] == 1 or not len(samples):
        return mono
    power = np.mean(np.square(samples), axis=0)
    loudest = int(power.argmax())
    ratio = float(np.sqrt(np.mean(np.square(mono)) / max(float(power[loudest]), np.finfo(np.float32).tiny)))
    if ratio >= CANCELLED or np.abs(samples[:, loudest]).max() < SILENCE_PEAK:
        return mono
    lost = f"{-20 * np.log10(ratio):.0f} dB" if ratio > 0 else "to nothing"
    changes.append(
        ("one channel taken", f"the channels' mean falls {lost}: channel {loudest + 1} is used alone")
    )
    return samples[:, loudest].copy()


def _scale(waveform: np.ndarray, changes: list[tuple[str, str]]) -> np.ndarray:
    """Divide the waveform where its peak is above 1.

    Raises:
        ClipError: silent, or numbers whose full scale cannot be told.
    """
    size = np.abs(waveform)
    peak = float(size.max())
    if peak < SILENCE_PEAK:
        raise ClipError("silent", f"peak below {SILENCE_PEAK}")
    if peak <= 1.0:
        return waveform
    if peak > CLICK_PEAK and np.percentile(size, CLICK_PERCENT) <= 1.0:
        clicks = int((size > 1.0).sum())
        changes.append(("clipped", f"{clicks} samples beyond full scale, {peak:.4g} at most: cut to 1"))
        return np.clip(waveform, -1.0, 1.0)
    divisor = peak
    if SMALLEST_INT8_PEAK <= peak < SMALLEST_INT16_PEAK:
        if not UINT8_ZERO[0] <= np.median(waveform) <= UINT8_ZERO[1]:
            raise ClipError(
                "undecodable",
                f"peak {peak:.4g} where 1 is full scale: 8-bit or 16-bit numbers that must be divided first",
            )
        changes.append(("scaled", "unsigned 8-bit numbers: 128 taken away, then divided by 128"))
        return np.clip((waveform - np.float32(128)) / np.float32(128), -1.0, 1.0)
    if SMALLEST_INT16_PEAK <= peak < LARGEST_INT16_PEAK:
        divisor = max(peak, 32768.0)
    changes.append(("scaled", f"peak {peak:.4g} where 1 is full scale: divided by {divisor:.5g}"))
    return waveform / np.float32(divisor)


def _reason(error: Exception) -> str:
    """Give libsndfile's words without the address of the buffer that it read."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    if "possibly a pipe" in text:  # libsndfile's word for bytes that it cannot place
        return "no audio format that is known here"
    return text.partition(">: ")[2] or text if "<_io.BytesIO" in text else text


def to_float(samples: np.ndarray) -> np.ndarray:
    """Convert int16 samples to float32 in [-1, 1]."""
    return samples.astype(np.float32) / 32767.0
