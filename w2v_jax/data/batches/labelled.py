"""Batches of speech with transcripts: bucketed, augmented, labelled."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from w2v_jax.batch import LabelledBatch
from w2v_jax.data.audio import to_float
from w2v_jax.data.batches.augmentation import NONE, Augmentation, augment
from w2v_jax.data.batches.buckets import Buckets, Choice
from w2v_jax.data.batches.crops import generator, stable_id
from w2v_jax.data.common_voice import Utterance, column, lengths


class LabelledBatches:
    """Whole clips with their labels, by step; every epoch augments every clip anew.

    Each bucket has one shape: room for its longest clip at its slowest speed, and for its longest
    transcript. Labels beyond a transcript's end are blanks.

    Attributes:
        steps_per_epoch: batches of an epoch.
    """

    def __init__(
        self,
        clips: Sequence[Utterance],
        labels: Sequence[Sequence[int]],
        *,
        batch_samples: int,
        num_buckets: int,
        identity: tuple[int, ...] = (0,),
        augmentation: Augmentation = NONE,
    ):
        """Choose the buckets.

        Args:
            clips: in any order.
            labels: token ids of every clip.
            batch_samples: at most in a batch, before augmentation.
            num_buckets: shapes to compile.
            identity: the same gives the same batches.
            augmentation: NONE for evaluation.
        """
        self._clips, self._labels = clips, labels
        self._identity, self._augmentation = identity, augmentation
        self._paths = column(clips, "path")
        self._buckets = Buckets(
            self._paths,
            lengths(clips),
            batch_samples=batch_samples,
            num_buckets=num_buckets,
            identity=identity,
        )
        self.steps_per_epoch = self._buckets.steps_per_epoch
        stretch = augmentation.longest_stretch
        self._room_samples = [math.ceil(longest * stretch) + 1 for longest in self._buckets.bucket_samples]
        self._room_labels = [
            max((len(labels[int(index)]) for index in self._buckets.members(bucket)), default=0) or 1
            for bucket in range(len(self._room_samples))
        ]

    def __getitem__(self, step: int) -> LabelledBatch:
        return self._make(self._buckets[step])

    @property
    def most_rows(self) -> int:
        """The clips that a batch of the first bucket holds, which has the shortest clips."""
        return self._buckets.rows[0]

    def of(self, indices: Sequence[int], epoch: int) -> LabelledBatch:
        """Make a batch of some clips, augmented as in an epoch; all clips have to be in one bucket.

        Args:
            indices: into the clips, at most `most_rows` of them.
            epoch: from 0.
        """
        assert len(self._buckets.rows) == 1
        assert len(indices) <= self.most_rows
        return self._make(Choice(epoch, 0, self.most_rows, np.asarray(indices, int)))

    def in_order(self, among: Sequence[int] | None = None) -> Iterator[tuple[list[int], LabelledBatch]]:
        """Give every clip once, with the indices of the clips in each batch.

        Args:
            among: indices of the clips to give; None gives all.
        """
        for choice in self._buckets.in_order(among):
            yield [int(index) for index in choice.indices], self._make(choice)

    def _make(self, choice: Choice) -> LabelledBatch:
        waveform = np.zeros((choice.rows, self._room_samples[choice.bucket]), np.float32)
        labels = np.zeros((choice.rows, self._room_labels[choice.bucket]), np.int32)
        num_samples, num_labels = np.zeros(choice.rows, np.int32), np.zeros(choice.rows, np.int32)
        utterance_id = np.zeros(choice.rows, np.uint32)
        for row, index in enumerate(map(int, choice.indices)):
            path = self._paths[index]
            rng = generator(*self._identity, choice.epoch, stable_id(path))
            samples = augment(to_float(self._clips[index].samples), rng, self._augmentation)
            waveform[row, : len(samples)] = samples
            num_samples[row] = len(samples)
            held = self._labels[index]
            labels[row, : len(held)] = held
            num_labels[row] = len(held)
            utterance_id[row] = stable_id(path)
        return LabelledBatch._make((waveform, num_samples, utterance_id, labels, num_labels))
