"""Crops and batches: deterministic by seed, never by position."""

import functools
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from w2v_jax.batch import Batch
from w2v_jax.data.audio import to_float
from w2v_jax.data.common_voice import Utterance, column


def stable_id(text: str) -> int:
    """Compute a 32-bit identity of a name, the same in every process (Python's hash is not)."""
    return zlib.crc32(text.encode())


def generator(*identity: int) -> np.random.Generator:
    """Make a NumPy generator for one purpose, from a tuple of non-negative integers."""
    return np.random.default_rng(np.random.SeedSequence(identity))


def crop(samples: np.ndarray, crop_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a random window of `crop_samples`; shorter clips come back whole."""
    if len(samples) <= crop_samples:
        return samples
    start = int(rng.integers(len(samples) - crop_samples + 1))
    return samples[start : start + crop_samples]


def make_batch(
    clips: Sequence[Utterance],
    rngs: Sequence[np.random.Generator | None],
    repeats: Sequence[int],
    *,
    batch_size: int,
    crop_samples: int,
    normalise: bool = False,
) -> Batch:
    """Stack crops into a Batch of fixed shape; missing rows are padding of length zero.

    Args:
        clips: at most `batch_size` clips.
        rngs: a generator per clip for its crop; None takes the clip's middle.
        repeats: how often the same clip came before in this batch; gives it draws of its own.
        normalise: give every window zero mean and unit variance.
    """
    waveform = np.zeros((batch_size, crop_samples), np.float32)
    num_samples = np.zeros(batch_size, np.int32)
    utterance_id = np.zeros(batch_size, np.uint32)
    for row, (clip, rng, repeat) in enumerate(zip(clips, rngs, repeats, strict=True)):
        if rng is None:
            start = max(clip.num_samples - crop_samples, 0) // 2
            window = clip.samples[start : start + crop_samples]
        else:
            window = crop(clip.samples, crop_samples, rng)
        values = to_float(window)
        if normalise:
            values = (values - values.mean()) / np.sqrt(values.var() + np.float32(1e-7))
        waveform[row, : len(window)] = values
        num_samples[row] = len(window)
        utterance_id[row] = (stable_id(clip.row.path) + repeat) % 2**32
    return Batch._make((waveform, num_samples, utterance_id))


class CropBatches:
    """Batches of random crops by step: shuffled epochs without end, each batch made when asked for.

    Every epoch has its own permutation and every clip its own crop in it, from `identity`, so the
    batches depend neither on the order of `clips` nor on which of them were asked for before.
    """

    def __init__(
        self, clips: Sequence[Utterance], *, batch_size: int, crop_samples: int, identity: tuple[int, ...]
    ):
        """Sort the clips by path.

        Args:
            identity: for instance (seed, round, client); the same identity gives the same batches.
        """
        paths = column(clips, "path")
        self._order = sorted(range(len(paths)), key=paths.__getitem__)
        self._paths = paths
        self._clips = clips
        self._batch_size, self._crop_samples, self._identity = batch_size, crop_samples, identity
        self._permutation = functools.lru_cache(maxsize=2)(self._permute)

    def _permute(self, epoch: int) -> np.ndarray:
        return generator(*self._identity, epoch).permutation(len(self._order))

    def __getitem__(self, step: int) -> Batch:
        chosen, rngs, repeats, seen = [], [], [], {}
        for position in range(step * self._batch_size, (step + 1) * self._batch_size):
            epoch, place = divmod(position, len(self._order))
            index = self._order[int(self._permutation(epoch)[place])]
            chosen.append(self._clips[index])
            rngs.append(generator(*self._identity, epoch, stable_id(self._paths[index])))
            repeats.append(seen.get(index, 0))
            seen[index] = repeats[-1] + 1
        return make_batch(chosen, rngs, repeats, batch_size=self._batch_size, crop_samples=self._crop_samples)


def training_batches(
    clips: Sequence[Utterance],
    *,
    batch_size: int,
    crop_samples: int,
    num_steps: int,
    identity: tuple[int, ...],
    first_step: int = 0,
) -> Iterator[Batch]:
    """Yield steps `first_step` to `num_steps` of CropBatches."""
    batches = CropBatches(clips, batch_size=batch_size, crop_samples=crop_samples, identity=identity)
    return (batches[step] for step in range(first_step, num_steps))


def evaluation_batches(clips: Sequence[Utterance], *, batch_size: int, crop_samples: int) -> Iterator[Batch]:
    """Yield the middle of every clip once, in the order of paths; the last batch is padded.

    Args:
        clips: in any order.
        batch_size: utterances of a batch.
        crop_samples: samples at 16 kHz that are kept of each; shorter clips are padded.
    """
    ordered = sorted(clips, key=lambda clip: clip.row.path)
    for start in range(0, len(ordered), batch_size):
        part = ordered[start : start + batch_size]
        yield make_batch(
            part, [None] * len(part), [0] * len(part), batch_size=batch_size, crop_samples=crop_samples
        )
