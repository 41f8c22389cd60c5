"""Choose the clips of every batch: buckets of similar length, shuffled anew in every epoch."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from w2v_jax.data.batches.crops import generator


class Choice(NamedTuple):
    """The clips of one batch.

    Attributes:
        epoch: how often the clips were gone through before.
        bucket: index of the bucket.
        rows: rows of the batch; there may be fewer clips.
        indices: into the clips.
    """

    epoch: int
    bucket: int
    rows: int
    indices: np.ndarray


class Buckets:
    """Clips in buckets of like length; each bucket has one shape.

    Every epoch goes through every clip once, in an order of its own that follows from `identity` and
    from the clips' paths, not from their order.

    Attributes:
        bucket_samples: longest clip of every bucket, rising.
        rows: clips in a batch of every bucket.
        steps_per_epoch: batches of an epoch; the last one of a bucket may have padded rows.
        padded_share: share of an epoch's samples that is padding.
    """

    def __init__(
        self,
        paths: Sequence[str],
        num_samples: np.ndarray,
        *,
        batch_samples: int,
        num_buckets: int,
        identity: tuple[int, ...],
    ):
        """Choose buckets of about equally many clips; a batch holds at most `batch_samples`."""
        self._identity = identity
        self._order = np.array(sorted(range(len(paths)), key=paths.__getitem__), dtype=int)
        ordered = num_samples[self._order]
        edges = np.quantile(ordered, np.arange(1, num_buckets + 1) / num_buckets, method="higher")
        self.bucket_samples: list[int] = sorted({int(edge) for edge in edges})
        bucket = np.searchsorted(self.bucket_samples, ordered)
        self._members = [np.flatnonzero(bucket == index) for index in range(len(self.bucket_samples))]
        self.rows = [max(1, batch_samples // length) for length in self.bucket_samples]
        batches = [-(-len(held) // rows) for held, rows in zip(self._members, self.rows, strict=True)]
        self._plan = np.array([(b, i) for b, count in enumerate(batches) for i in range(count)])
        self.steps_per_epoch = len(self._plan)
        slots = sum(
            count * rows * length
            for count, rows, length in zip(batches, self.rows, self.bucket_samples, strict=True)
        )
        self.padded_share = 1.0 - float(ordered.sum()) / slots
        self._epoch = functools.lru_cache(maxsize=2)(self._shuffle)

    def members(self, bucket: int) -> np.ndarray:
        """Find the indices of a bucket's clips."""
        return self._order[self._members[bucket]]

    def _shuffle(self, epoch: int) -> tuple[np.ndarray, list[np.ndarray]]:
        rng = generator(*self._identity, epoch)
        return rng.permutation(self._plan), [rng.permutation(held) for held in self._members]

    def _choice(self, epoch: int, bucket: int, number: int, members: list[np.ndarray]) -> Choice:
        rows = self.rows[bucket]
        return Choice(epoch, bucket, rows, self._order[members[bucket][number * rows : (number + 1) * rows]])

    def __getitem__(self, step: int) -> Choice:
        epoch, place = divmod(step, self.steps_per_epoch)
        plan, members = self._epoch(epoch)
        bucket, number = plan[place]
        return self._choice(epoch, int(bucket), int(number), members)

    def in_order(self, among: Sequence[int] | None = None) -> Iterator[Choice]:
        """Give every clip once, unshuffled.

        Args:
            among: indices of the clips to give; None gives all.
        """
        for bucket, members in enumerate(self._members):
            rows = self.rows[bucket]
            held = members if among is None else members[np.isin(self._order[members], among)]
            for start in range(0, len(held), rows):
                yield Choice(0, bucket, rows, self._order[held[start : start + rows]])
