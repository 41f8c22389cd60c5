"""Crops and batches: deterministic by seed, never by position."""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from w2v_jax.data.audio import to_float
from w2v_jax.data.common_voice import Clip
from w2v_jax.objective import Batch


def stable_id(text: str) -> int:
    """A 32-bit identity of a name, the same in every process (Python's hash is not)."""
    return zlib.crc32(text.encode())


def generator(*identity: int) -> np.random.Generator:
    """A NumPy generator for one purpose, from a tuple of non-negative integers."""
    return np.random.default_rng(np.random.SeedSequence(identity))


def crop(samples: np.ndarray, crop_samples: int, rng: np.random.Generator) -> np.ndarray:
    """A random window of `crop_samples`; shorter clips come back whole."""
    if len(samples) <= crop_samples:
        return samples
    start = int(rng.integers(len(samples) - crop_samples + 1))
    return samples[start : start + crop_samples]


def make_batch(
    clips: Sequence[Clip],
    rngs: Sequence[np.random.Generator | None],
    repeats: Sequence[int],
    *,
    batch_size: int,
    crop_samples: int,
) -> Batch:
    """Stack crops into a Batch of fixed shape; missing rows are padding of length zero.

    Args:
        clips: at most `batch_size` clips.
        rngs: a generator per clip for its crop; None takes the clip's middle.
        repeats: how often the same clip came before in this batch; gives it draws of its own.
    """
    waveform = np.zeros((batch_size, crop_samples), np.float32)
    num_samples = np.zeros(batch_size, np.int32)
    utterance_id = np.zeros(batch_size, np.uint32)
    for row, (clip, rng, repeat) in enumerate(zip(clips, rngs, repeats, strict=True)):
        if rng is None:
            start = max(len(clip.samples) - crop_samples, 0) // 2
            window = clip.samples[start : start + crop_samples]
        else:
            window = crop(clip.samples, crop_samples, rng)
        waveform[row, : len(window)] = to_float(window)
        num_samples[row] = len(window)
        utterance_id[row] = (stable_id(clip.row.path) + repeat) % 2**32
    return Batch._make((waveform, num_samples, utterance_id))


def training_batches(
    clips: Sequence[Clip],
    *,
    batch_size: int,
    crop_samples: int,
    num_steps: int,
    identity: tuple[int, ...],
    first_step: int = 0,
) -> Iterator[Batch]:
    """`num_steps` batches of random crops, going through shuffled epochs without end.

    Every epoch has its own permutation and every clip its own crop in it, from `identity`, so the
    batches depend neither on the order of `clips` nor on how many steps are asked for.

    Args:
        identity: for instance (seed, round, client); the same identity gives the same batches.
        first_step: steps to leave out at the start.
    """
    ordered = sorted(clips, key=lambda clip: clip.row.path)
    permutations: dict[int, np.ndarray] = {}

    def at(position: int) -> tuple[int, int]:
        epoch, place = divmod(position, len(ordered))
        if epoch not in permutations:
            permutations[epoch] = generator(*identity, epoch).permutation(len(ordered))
        return epoch, int(permutations[epoch][place])

    for step in range(first_step, num_steps):
        chosen, rngs, repeats, seen = [], [], [], {}
        for position in range(step * batch_size, (step + 1) * batch_size):
            epoch, index = at(position)
            clip = ordered[index]
            chosen.append(clip)
            rngs.append(generator(*identity, epoch, stable_id(clip.row.path)))
            repeats.append(seen.get(index, 0))
            seen[index] = repeats[-1] + 1
        yield make_batch(chosen, rngs, repeats, batch_size=batch_size, crop_samples=crop_samples)


def evaluation_batches(clips: Sequence[Clip], *, batch_size: int, crop_samples: int) -> Iterator[Batch]:
    """Every clip once, its middle, in the order of their paths; the last batch is padded."""
    ordered = sorted(clips, key=lambda clip: clip.row.path)
    for start in range(0, len(ordered), batch_size):
        part = ordered[start : start + batch_size]
        yield make_batch(
            part, [None] * len(part), [0] * len(part), batch_size=batch_size, crop_samples=crop_samples
        )
