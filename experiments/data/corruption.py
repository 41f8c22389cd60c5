"""Spoil the audio of clients: samples are spoilt when they are read, every time in the same way."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import numpy as np

from fed.keys import Stream, stream_generator
from w2v_jax.data.batches.crops import stable_id
from w2v_jax.data.common_voice import Utterance, column, lengths, take
from w2v_jax.data.tables import ClipRow
from w2v_jax.errors import UserError

FULL_SCALE = 32767  # as audio.decode scales
NOISE_SNR_DB = 0.0
CLIP_GAIN_DB = 30.0
QUIET_GAIN_DB = -60.0

Spoiling = Callable[[np.ndarray, str], np.ndarray]


def add_noise(samples: np.ndarray, rng: np.random.Generator, snr_db: float = NOISE_SNR_DB) -> np.ndarray:
    """Add white noise at a signal-to-noise ratio in dB against the clip's own mean power.

    Args:
        samples: int16 [samples].

    Returns:
        int16 [samples], saturated at full scale.
    """
    signal = samples.astype(np.float64)
    scale = np.sqrt(np.mean(np.square(signal))) * 10 ** (-snr_db / 20)
    return _to_int16(signal + scale * rng.standard_normal(len(signal)))


def amplify(samples: np.ndarray, gain_db: float) -> np.ndarray:
    """Scale int16 [samples] by a gain in dB, round to int16 again and saturate at full scale."""
    return _to_int16(samples.astype(np.float64) * 10 ** (gain_db / 20))


def _to_int16(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), -FULL_SCALE, FULL_SCALE).astype(np.int16)


def spoiling(kind: str, seed: int) -> Spoiling:
    """Make a function from int16 samples and a clip's path to spoilt int16 samples of the same length.

    Args:
        kind: "noise" (white, at 0 dB against the clip's own power), "clip" (30 dB louder, saturated)
            or "quiet" (60 dB softer: what is left spans a few steps of 16 bits).
        seed: of the noise, together with the path: a clip sounds the same whenever it is read.
    """
    rules: dict[str, Spoiling] = {
        "noise": lambda samples, path: add_noise(
            samples, stream_generator(Stream.CORRUPTION_NOISE, seed, stable_id(path))
        ),
        "clip": lambda samples, path: amplify(samples, CLIP_GAIN_DB),
        "quiet": lambda samples, path: amplify(samples, QUIET_GAIN_DB),
    }
    return rules[kind]


def choose(client_ids: Sequence[str], count: int, seed: int) -> list[str]:
    """Choose the clients whose audio is spoilt by the seed alone, sorted; a larger number adds clients.

    Raises:
        UserError: there are fewer clients than `count`.
    """
    names = sorted(client_ids)
    if count > len(names):
        raise UserError(f"--corrupted-clients {count} is more than the {len(names)} clients")
    order = stream_generator(Stream.CORRUPTED_CLIENTS, seed).permutation(len(names))
    return sorted(names[index] for index in order[:count])


def spoil(
    clients: Mapping[str, Sequence[Utterance]], chosen: Sequence[str], kind: str, seed: int
) -> dict[str, Sequence[Utterance]]:
    """Wrap the clips of the chosen clients; those of the others stay as they are."""
    how = spoiling(kind, seed)
    return {name: SpoiltClips(clips, how) if name in chosen else clips for name, clips in clients.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class SpoiltClip:
    """An Utterance whose samples are spoilt when they are asked for."""

    clip: Utterance
    how: Spoiling

    @property
    def row(self) -> ClipRow:
        return self.clip.row

    @property
    def num_samples(self) -> int:
        return self.clip.num_samples

    @property
    def samples(self) -> np.ndarray:
        return self.how(self.clip.samples, self.clip.row.path)

    @property
    def seconds(self) -> float:
        return self.clip.seconds


class SpoiltClips(Sequence[SpoiltClip]):
    """Clips that are spoilt when they are read; columns and lengths are those of the clips."""

    def __init__(self, clips: Sequence[Utterance], how: Spoiling):
        self._clips, self._how = clips, how

    def __len__(self) -> int:
        return len(self._clips)

    def column(self, name: str) -> Sequence[str]:
        """See `common_voice.column`."""
        return column(self._clips, name)

    def lengths(self) -> np.ndarray:
        """See `common_voice.lengths`."""
        return lengths(self._clips)

    def take(self, indices: Iterable[int]) -> "SpoiltClips":
        """See `common_voice.take`."""
        return SpoiltClips(take(self._clips, indices), self._how)

    @overload
    def __getitem__(self, index: int) -> SpoiltClip: ...
    @overload
    def __getitem__(self, index: slice) -> "SpoiltClips": ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return SpoiltClips(self._clips[index], self._how)
        return SpoiltClip(self._clips[index], self._how)
