"""Labelled batches: every clip once an epoch, the same whatever the order, with room for every speed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2v_jax.data.audio import to_float
from w2v_jax.data.batches.augmentation import NONE, Augmentation
from w2v_jax.data.batches.buckets import Buckets
from w2v_jax.data.batches.crops import stable_id
from w2v_jax.data.batches.labelled import LabelledBatches
from w2v_jax.data.common_voice import Clip
from w2v_jax.data.tables import ClipRow
from w2v_jax.recognition.ctc import BLANK


def make_clips(lengths, seed=0):
    rng = np.random.default_rng(seed)
    clips, labels = [], []
    for number, length in enumerate(lengths):
        samples = (rng.standard_normal(length) * 3000).astype(np.int16)
        clips.append(Clip(row=ClipRow(client_id="a", path=f"{number * 7 % 1000:03d}.flac"), samples=samples))
        labels.append(rng.integers(1, 9, rng.integers(0, 7)).tolist())
    return clips, labels


LENGTHS = [3000, 1200, 900, 2500, 2200, 1900, 1250, 640, 2999, 1300, 2050]


def batches_of(clips, labels, **changes):
    options = {"batch_samples": 6000, "num_buckets": 3, "identity": (5,), "augmentation": Augmentation()}
    return LabelledBatches(clips, labels, **(options | changes))


def clips_of(batch):
    """Ids of the rows that are clips."""
    return [int(name) for name, count in zip(batch.utterance_id, batch.num_samples, strict=True) if count]


def assert_same(ours, theirs):
    for here, there in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(here, there)


def test_the_order_of_the_clips_changes_nothing():
    clips, labels = make_clips(LENGTHS)
    order = np.random.default_rng(1).permutation(len(clips))
    here = batches_of(clips, labels)
    there = batches_of([clips[i] for i in order], [labels[i] for i in order])
    assert here.steps_per_epoch == there.steps_per_epoch
    for step in range(2 * here.steps_per_epoch):
        assert_same(here[step], there[step])


def test_every_epoch_goes_through_every_clip_once_in_an_order_of_its_own():
    clips, labels = make_clips(LENGTHS)
    batches = batches_of(clips, labels)
    everyone = sorted(stable_id(clip.row.path) for clip in clips)
    orders = []
    for epoch in range(4):
        first = epoch * batches.steps_per_epoch
        found = [name for step in range(batches.steps_per_epoch) for name in clips_of(batches[first + step])]
        assert sorted(found) == everyone
        orders.append(tuple(found))
    assert len(set(orders)) == 4
    other = batches_of(clips, labels, identity=(6,))
    assert orders[0] != tuple(n for step in range(other.steps_per_epoch) for n in clips_of(other[step]))


def test_steps_are_the_same_whenever_they_are_asked_for():
    clips, labels = make_clips(LENGTHS)
    batches, again = batches_of(clips, labels), batches_of(clips, labels)
    late = again[9]
    for step in range(9):
        batches[step]
    assert_same(batches[9], late)


def test_labels_are_the_clips_own_and_padded_with_blanks():
    clips, labels = make_clips(LENGTHS)
    held = {stable_id(clip.row.path): label for clip, label in zip(clips, labels, strict=True)}
    batches = batches_of(clips, labels)
    for step in range(batches.steps_per_epoch):
        batch = batches[step]
        for row, count in enumerate(batch.num_labels):
            expected = held[int(batch.utterance_id[row])] if batch.num_samples[row] else []
            assert batch.labels[row, :count].tolist() == expected
            assert (batch.labels[row, count:] == BLANK).all()
        assert batch.labels.dtype == batch.num_samples.dtype == np.int32
        assert batch.waveform.dtype == np.float32


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 700), min_size=1, max_size=12),
    slowest=st.sampled_from([0.5, 0.77, 0.9, 0.95, 1.0]),
)
def test_no_speed_outgrows_its_bucket(lengths, slowest):
    clips, labels = make_clips(lengths)
    augmentation = Augmentation(speeds=(slowest,), chunk_samples=(5, 9))
    batches = batches_of(clips, labels, augmentation=augmentation, batch_samples=1500)
    for step in range(batches.steps_per_epoch):
        batch = batches[step]
        assert batch.num_samples.max() <= batch.waveform.shape[1]
        for row, count in enumerate(batch.num_samples):
            assert not batch.waveform[row, count:].any()


def test_the_recipes_augmentation_fits_and_every_bucket_has_one_shape():
    clips, labels = make_clips(LENGTHS)
    batches = batches_of(clips, labels)
    shapes, stretched = set(), set()
    lengths = {stable_id(clip.row.path): clip.num_samples for clip in clips}
    for step in range(8 * batches.steps_per_epoch):
        batch = batches[step]
        shapes.add((batch.waveform.shape, batch.labels.shape))
        for name, count in zip(batch.utterance_id, batch.num_samples, strict=True):
            if count:
                stretched.add(round(count / lengths[int(name)], 2))
    assert len(shapes) == 3
    assert stretched == {0.95, 1.0, 1.05}


def test_epochs_augment_anew_and_evaluation_never_does():
    clips, labels = make_clips(LENGTHS)
    batches = batches_of(clips, labels)
    name = stable_id(clips[0].row.path)
    heard = []
    for step in range(5 * batches.steps_per_epoch):
        batch = batches[step]
        for row in np.flatnonzero((batch.utterance_id == name) & (batch.num_samples > 0)):
            heard.append(batch.waveform[row, : batch.num_samples[row]].tobytes())
    assert len(heard) == len(set(heard)) == 5
    plain = batches_of(clips, labels, augmentation=NONE)
    for step in range(2 * plain.steps_per_epoch):
        batch = plain[step]
        for row in np.flatnonzero((batch.utterance_id == name) & (batch.num_samples > 0)):
            found = batch.waveform[row, : batch.num_samples[row]]
            np.testing.assert_array_equal(found, to_float(clips[0].samples))


def test_in_order_says_which_clips_its_rows_are():
    clips, labels = make_clips(LENGTHS)
    batches = batches_of(clips, labels, augmentation=NONE)
    seen = []
    for indices, batch in batches.in_order():
        seen += indices
        assert len(indices) <= len(batch.num_samples)
        for row, index in enumerate(indices):
            clip = clips[index]
            assert int(batch.utterance_id[row]) == stable_id(clip.row.path)
            assert int(batch.num_samples[row]) == clip.num_samples
            np.testing.assert_array_equal(batch.waveform[row, : clip.num_samples], to_float(clip.samples))
            assert batch.labels[row, : batch.num_labels[row]].tolist() == labels[index]
        assert not batch.num_samples[len(indices) :].any()
    assert sorted(seen) == list(range(len(clips)))
    again = [indices for indices, _ in batches.in_order()]
    assert again == [indices for indices, _ in batches.in_order()]


def test_buckets_hold_clips_of_like_length_and_little_padding():
    paths = [f"{i}" for i in range(400)]
    lengths = np.random.default_rng(0).integers(1000, 9000, 400)
    buckets = Buckets(paths, lengths, batch_samples=40_000, num_buckets=4, identity=(0,))
    assert len(buckets.bucket_samples) == 4
    assert buckets.bucket_samples[-1] == lengths.max()
    sizes = [len(buckets.members(bucket)) for bucket in range(4)]
    assert sum(sizes) == 400
    assert max(sizes) - min(sizes) < 10
    slots = 0
    for step in range(buckets.steps_per_epoch):
        choice = buckets[step]
        longest = buckets.bucket_samples[choice.bucket]
        assert choice.rows * longest <= 40_000
        assert (lengths[choice.indices] <= longest).all()
        assert set(choice.indices) <= set(buckets.members(choice.bucket))
        slots += choice.rows * longest
    assert buckets.padded_share == pytest.approx(1 - lengths.sum() / slots)
    assert buckets.padded_share < 0.25


def test_a_clip_longer_than_a_batch_has_one_of_its_own():
    lengths = np.array([90, 9000, 100])
    buckets = Buckets(["a", "b", "c"], lengths, batch_samples=1000, num_buckets=2, identity=(0,))
    rows = {buckets[step].bucket: buckets[step].rows for step in range(buckets.steps_per_epoch)}
    assert rows == {0: 10, 1: 1}
