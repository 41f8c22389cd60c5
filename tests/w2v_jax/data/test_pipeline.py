import itertools

import jax
import numpy as np
import pytest

from w2v_jax.data.batches.crops import CropBatches, training_batches
from w2v_jax.data.batches.pipeline import BucketBatches, stream
from w2v_jax.data.common_voice import Clip, column, lengths, load_corpus, take
from w2v_jax.data.prepared.corpus import load_prepared
from w2v_jax.data.prepared.preparation import prepare
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.data.tables import ClipRow


def clip(number: int, num_samples: int) -> Clip:
    """A clip whose samples say which clip it is."""
    row = ClipRow(client_id=f"speaker{number % 3}", path=f"{number:04d}.flac")
    return Clip(row=row, samples=np.full(num_samples, number + 1, np.int16))


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    return [clip(i, int(n)) for i, n in enumerate(rng.integers(200, 3000, 60))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A corpus as it is, and prepared."""
    raw = write_corpus(
        tmp_path_factory.mktemp("raw"), SyntheticConfig(speakers=5, clips_per_speaker=4, words=20)
    )
    return raw, prepare(raw, tmp_path_factory.mktemp("prepared") / "set", clips_per_shard=3)


def numbers(batch) -> list[int]:
    """Which clips a batch holds."""
    return [
        round(float(row[0]) * 32767) - 1
        for row, n in zip(batch.waveform, batch.num_samples, strict=True)
        if n
    ]


def buckets(clips, **changes):
    options = {"batch_samples": 9000, "cap_samples": 2500, "num_buckets": 4, "identity": (7,)}
    return BucketBatches(clips, **(options | changes))


def test_an_epoch_of_buckets_has_every_clip_once_whole_or_capped(clips):
    batches = buckets(clips)
    epoch = [batches[step] for step in range(batches.steps_per_epoch)]
    assert sorted(n for batch in epoch for n in numbers(batch)) == list(range(60))
    shapes = {batch.waveform.shape for batch in epoch}
    assert len(shapes) == len(batches.bucket_samples) == 4
    for batch in epoch:
        rows, length = batch.waveform.shape
        assert rows * length <= 9000
        for n, used in zip(numbers(batch), batch.num_samples, strict=False):
            assert used == min(clips[n].num_samples, 2500) <= length


def test_the_padded_share_is_that_of_the_batches(clips):
    batches = buckets(clips)
    epoch = [batches[step] for step in range(batches.steps_per_epoch)]
    used = sum(int(batch.num_samples.sum()) for batch in epoch)
    slots = sum(batch.waveform.size for batch in epoch)
    assert batches.padded_share == pytest.approx(1 - used / slots)
    assert batches.padded_share < buckets(clips, num_buckets=1).padded_share


def test_epochs_differ_and_identities_too(clips):
    batches = buckets(clips)
    per_epoch = batches.steps_per_epoch
    first, second = ([numbers(batches[s + e * per_epoch]) for s in range(per_epoch)] for e in (0, 1))
    assert first != second
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second))
    assert first == [numbers(buckets(clips)[s]) for s in range(per_epoch)]
    assert first != [numbers(buckets(clips, identity=(8,))[s]) for s in range(per_epoch)]


def test_normalisation_is_per_clip():
    rng = np.random.default_rng(0)
    noisy = [
        Clip(
            row=ClipRow(client_id="s", path=f"{i}"), samples=rng.integers(-3000, 9000, 2000).astype(np.int16)
        )
        for i in range(4)
    ]
    batch = buckets(noisy, normalise=True)[0]
    for row, n in zip(batch.waveform, batch.num_samples, strict=True):
        if n:
            assert abs(row[:n].mean()) < 1e-4
            assert row[:n].std() == pytest.approx(1.0, abs=1e-3)


def test_a_batch_too_small_for_a_clip_is_refused(clips):
    with pytest.raises(ValueError, match="cannot hold clips of 2500"):
        buckets(clips, batch_samples=2000)


def equal(ours, theirs) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("handed_out", [0, 1, 5, 11])
def test_a_stream_continues_exactly_from_its_state(clips, threads, handed_out):
    batches = CropBatches(clips, batch_size=4, crop_samples=800, identity=(3,))
    expected = list(training_batches(clips, batch_size=4, crop_samples=800, num_steps=20, identity=(3,)))
    first = stream(batches, num_steps=20, threads=threads)
    got = [next(first) for _ in range(handed_out)]
    state = first.get_state()
    again = stream(batches, num_steps=20, threads=threads)
    again.set_state(state)
    got += list(again)
    assert len(got) == 20
    assert all(equal(a, b) for a, b in zip(got, expected, strict=True))


def test_a_stream_may_begin_later(clips):
    batches = CropBatches(clips, batch_size=4, crop_samples=800, identity=(3,))
    later = list(stream(batches, first_step=5, num_steps=8))
    assert len(later) == 3
    assert all(equal(batch, batches[step]) for step, batch in enumerate(later, start=5))


def test_a_stream_continues_exactly_on_the_device_too(clips):
    batches = CropBatches(clips, batch_size=4, crop_samples=800, identity=(3,))
    first = stream(batches, num_steps=9, device=jax.devices()[0])
    got = [next(first) for _ in range(4)]
    again = stream(batches, num_steps=9, device=jax.devices()[0])
    again.set_state(first.get_state())
    got += list(again)
    assert len(got) == 9
    assert all(equal(jax.device_get(batch), batches[step]) for step, batch in enumerate(got))


def test_a_stream_can_end_on_the_device(clips):
    batches = CropBatches(clips, batch_size=4, crop_samples=800, identity=(3,))
    device = jax.devices()[-1]
    (first, *_) = list(stream(batches, num_steps=3, device=device))
    assert first.waveform.devices() == {device}
    assert equal(jax.device_get(first), batches[0])


def test_prepared_and_raw_corpora_give_the_same_batches(folders):
    raw, prepared = folders
    ours, theirs = load_prepared(prepared).clips, load_corpus(raw).clips
    options = {"batch_size": 3, "crop_samples": 4000, "identity": (1, 2)}
    for step in (0, 3, 11):
        ours_batch, theirs_batch = (CropBatches(c, **options)[step] for c in (ours, theirs))
        assert equal(ours_batch, theirs_batch)
    assert sorted(column(ours, "path")) == sorted(column(theirs, "path"))
    assert lengths(ours).sum() == lengths(theirs).sum()
    some = take(ours, [3, 1])
    assert column(some, "path") == [ours[3].row.path, ours[1].row.path]
    assert [c.row.path for c in ours[1:3]] == [ours[1].row.path, ours[2].row.path]


def test_short_clips_of_a_prepared_corpus_are_listed(folders):
    _, prepared = folders
    everything = load_prepared(prepared)
    limit = int(np.median(lengths(everything.clips)))
    corpus = load_prepared(prepared, min_samples=limit)
    assert len(corpus.clips) + len(corpus.skipped) == len(everything.clips)
    assert corpus.skipped_by_reason() == {"too short": len(corpus.skipped)}
    assert lengths(corpus.clips).min() >= limit
