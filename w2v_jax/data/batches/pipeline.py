"""The input pipeline: batches by step, read ahead on threads by grain, moved to the device.

Batches are random access by step (`CropBatches`, `BucketBatches`), so that the state of a pipeline is
one number and continuing from it is exact. grain's worker processes need parsed absl flags and do
not start from a plain script: threads it is; reading and decoding release the GIL.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from w2v_jax.batch import Batch
from w2v_jax.data.batches.buckets import Buckets
from w2v_jax.data.batches.crops import generator, make_batch, stable_id
from w2v_jax.data.common_voice import Utterance, column, lengths

UNBOUNDED_STEPS = 2**40


@runtime_checkable
class StepBatches(Protocol):
    """Batches by step, each the same whenever it is asked for."""

    def __getitem__(self, step: int) -> Any: ...


class BucketBatches:
    """Whole clips up to a cap in buckets of like length; each bucket has one shape.

    The buckets are those of `Buckets`; clips longer than the cap are cut at a random place.

    Attributes:
        bucket_samples: padded lengths, rising.
        steps_per_epoch: batches of an epoch; the last one of a bucket may have padded rows.
        padded_share: share of an epoch's samples that is padding.
    """

    def __init__(
        self,
        clips: Sequence[Utterance],
        *,
        batch_samples: int,
        cap_samples: int,
        num_buckets: int,
        identity: tuple[int, ...],
        normalise: bool = False,
    ):
        """Choose buckets of about equally many clips.

        Raises:
            ValueError: a batch cannot hold a clip of the cap's length.
        """
        if batch_samples < cap_samples:
            raise ValueError(f"batches of {batch_samples} samples cannot hold clips of {cap_samples}")
        self._clips, self._identity, self._normalise = clips, identity, normalise
        self._paths = column(clips, "path")
        self._buckets = Buckets(
            self._paths,
            np.minimum(lengths(clips), cap_samples),
            batch_samples=batch_samples,
            num_buckets=num_buckets,
            identity=identity,
        )
        self.bucket_samples = self._buckets.bucket_samples
        self.steps_per_epoch = self._buckets.steps_per_epoch
        self.padded_share = self._buckets.padded_share

    def __getitem__(self, step: int) -> Batch:
        choice = self._buckets[step]
        clips = [self._clips[int(index)] for index in choice.indices]
        rngs = [
            generator(*self._identity, choice.epoch, stable_id(self._paths[int(index)]))
            for index in choice.indices
        ]
        return make_batch(
            clips,
            rngs,
            [0] * len(clips),
            batch_size=choice.rows,
            crop_samples=self.bucket_samples[choice.bucket],
            normalise=self._normalise,
        )


class _Steps(Sequence):
    """Batches as the finite sequence that grain asks for."""

    def __init__(self, batches: StepBatches, first_step: int, num_steps: int):
        self._batches, self._first_step, self._num_steps = batches, first_step, num_steps

    def __len__(self) -> int:
        return self._num_steps - self._first_step

    def __getitem__(self, step: Any) -> Any:
        return self._batches[self._first_step + int(step)]


def stream(
    batches: StepBatches,
    *,
    num_steps: int | None = None,
    first_step: int = 0,
    threads: int = 2,
    read_ahead: int = 8,
    device: Any = None,
) -> Any:
    """A grain iterator over batches in the order of steps.

    `get_state()` and `set_state(state)` (grain's, small and JSON-like) continue at the next batch
    exactly; batches that were read ahead and not handed out come again.

    Args:
        batches: random access by step.
        num_steps: where to stop; None for never.
        first_step: where to begin.
        threads: that read and decode.
        read_ahead: batches in memory, at most.
        device: where batches go, in the background, as jax.device_put takes it; None leaves NumPy arrays.
    """
    import grain

    steps = _Steps(batches, first_step, UNBOUNDED_STEPS if num_steps is None else num_steps)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=read_ahead)
    dataset = grain.MapDataset.source(steps).to_iter_dataset(options)
    if device is not None:
        dataset = grain.experimental.device_put(dataset, device)
    return iter(dataset)
