import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2v_jax.data.batches.augmentation import (
    NONE,
    Augmentation,
    augment,
    change_speed,
    drop_bands,
    drop_chunks,
)
from w2v_jax.errors import UserError

RATE_HZ = 16_000
BANDS = Augmentation(speeds=(1.0,), max_chunks=0)
CHUNKS = Augmentation(speeds=(1.0,), max_bands=0)


def noise(num_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def power(samples):
    """Power by frequency, with a window so that a clip's edges do not leak between bands."""
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 40_000) | st.integers(0, 40),
    st.integers(0, 2**32),
    st.sampled_from([(0.95, 1.0, 1.05), (0.9,), (1.1,), (0.5, 2.0), (0.8, 0.93)]),
)
def test_room_for_the_longest_stretch_is_room_enough(num_samples, seed, speeds):
    samples = noise(num_samples)
    before = samples.copy()
    config = Augmentation(speeds=speeds)
    augmented = augment(samples, np.random.default_rng(seed), config)
    assert augmented.dtype == np.float32
    assert len(augmented) <= math.ceil(num_samples * config.longest_stretch) + 1
    assert len(augmented) >= num_samples / max(speeds) - 1
    assert np.isfinite(augmented).all()
    np.testing.assert_array_equal(samples, before)  # the caller's clip is not written to


@pytest.mark.parametrize("speed", [0.95, 1.05])
def test_faster_is_shorter_and_higher(speed):
    tone = np.sin(2 * np.pi * 1_000 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    changed = change_speed(tone, speed)
    assert abs(len(changed) - RATE_HZ / speed) <= 1
    peak_hz = np.argmax(power(changed)) * RATE_HZ / len(changed)
    assert abs(peak_hz - 1_000 * speed) < 2
    assert abs(np.abs(changed[200:-200]).max() - 1) < 0.01  # as loud as before


def test_every_speed_is_drawn():
    lengths = {len(augment(noise(4_000), np.random.default_rng(seed), Augmentation())) for seed in range(40)}
    assert lengths == {round(4_000 / 0.95), 4_000, round(4_000 / 1.05)}


@pytest.mark.parametrize("num_samples", [RATE_HZ, 15_991])  # the second is prime, so it gets padded
@pytest.mark.parametrize("seed", [s for s in range(12) if np.random.default_rng(s).integers(2)])
def test_a_dropped_band_loses_its_energy_and_the_others_keep_theirs(num_samples, seed):
    samples = noise(num_samples)
    dropped = drop_bands(samples, np.random.default_rng(seed), Augmentation(max_bands=1, band_width=0.1))
    assert dropped.dtype == np.float32
    assert len(dropped) == num_samples
    rng = np.random.default_rng(seed)
    assert rng.integers(1, endpoint=True) == 1  # bands
    centre = rng.uniform()
    frequencies = np.arange(num_samples // 2 + 1) / (num_samples / 2)
    distance = np.abs(frequencies - centre)
    before, after = power(samples), power(dropped)
    inside, outside = distance < 0.048, distance > 0.065
    assert inside.sum() > 200
    assert after[inside].sum() < 1e-4 * before[inside].sum()
    # Bin by bin, so that a shift of phase or a loss anywhere would show.
    spectrum = np.fft.rfft(samples * np.hanning(num_samples))
    difference = np.abs(np.fft.rfft(dropped * np.hanning(num_samples)) - spectrum)
    assert (difference[outside] ** 2).sum() < 1e-4 * before[outside].sum()


def test_up_to_three_bands_of_their_width_anywhere():
    samples = noise(RATE_HZ)
    shares = []
    counts = set()
    lost = np.zeros(RATE_HZ // 2 + 1, bool)
    for seed in range(60):
        dropped = drop_bands(samples, np.random.default_rng(seed), BANDS)
        silent = np.abs(np.fft.rfft(dropped)) < 1e-3 * np.abs(np.fft.rfft(samples)).mean()
        lost |= silent
        shares.append(silent.mean())
        counts.add(int(np.ceil(silent.mean() / 0.055)))
    assert counts == {0, 1, 2, 3}
    assert max(shares) < 3 * 0.055
    assert lost[: RATE_HZ // 4].mean() > 0.8
    assert lost[RATE_HZ // 4 :].mean() > 0.8


def zero_runs(samples):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], samples == 0, [0]])))
    return list(zip(edges[::2], edges[1::2], strict=True))


def test_chunks_are_zeros_and_the_rest_is_untouched():
    samples = np.abs(noise(10 * RATE_HZ)) + np.float32(0.01)
    counts, lengths = set(), []
    for seed in range(100):
        kept = drop_chunks(samples, np.random.default_rng(seed), CHUNKS)
        assert kept.dtype == np.float32
        np.testing.assert_array_equal(kept[kept != 0], samples[kept != 0])
        runs = zero_runs(kept)
        counts.add(len(runs))
        lengths += [end - start for start, end in runs]
    assert counts == {0, 1, 2, 3, 4, 5}
    assert min(lengths) >= 1_000
    apart = [length for length in lengths if length <= 2_000]  # longer ones are two that meet
    assert len(apart) > 0.8 * len(lengths)
    assert min(apart) < 1_050
    assert max(apart) > 1_950


@pytest.mark.parametrize("num_samples", [0, 1, 2, 500, 1_000, 3_000, 8_000])
def test_never_more_than_half_of_a_clip_is_silenced(num_samples):
    samples = np.ones(num_samples, np.float32)
    shares = []
    for seed in range(50):
        kept = drop_chunks(samples, np.random.default_rng(seed), CHUNKS)
        assert len(kept) == num_samples
        assert 2 * (kept == 0).sum() <= num_samples
        shares.append(int((kept == 0).sum()))
    assert num_samples < 2 or max(shares) > 0


def test_chunks_reach_both_ends_of_a_clip():
    config = Augmentation(max_chunks=1, chunk_samples=(1, 1))
    kept = [drop_chunks(np.ones(4, np.float32), np.random.default_rng(seed), config) for seed in range(60)]
    places = {int(np.argmin(clip)) for clip in kept if not clip.all()}
    assert places == {0, 1, 2, 3}


@pytest.mark.parametrize("num_samples", [0, 1, 15_991])
def test_none_changes_nothing(num_samples):
    samples = noise(num_samples)
    np.testing.assert_array_equal(augment(samples, np.random.default_rng(0), NONE), samples)
    assert NONE.longest_stretch == 1


def test_the_generator_alone_decides():
    samples = noise(RATE_HZ)
    first, again, other = (
        augment(samples, np.random.default_rng(seed), Augmentation()) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or (first != other).any()


def test_longest_stretch_is_that_of_the_slowest_speed():
    assert Augmentation().longest_stretch == pytest.approx(1 / 0.95)
    assert Augmentation(speeds=(2.0, 0.5)).longest_stretch == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"speeds": ()}, "give one or more from 0.5 to 2"),
        ({"speeds": (1.0, 0.0)}, "give one or more from 0.5 to 2"),
        ({"speeds": (95.0,)}, "give one or more from 0.5 to 2"),
        ({"max_bands": -1}, r"max_bands=-1, .* give 0"),
        ({"max_chunks": -1}, r"max_chunks=-1: give 0"),
        ({"band_width": 0.0}, "share of the Nyquist"),
        ({"band_width": 400.0}, "share of the Nyquist"),
        ({"chunk_samples": (0, 10)}, "the shortest, above 0"),
        ({"chunk_samples": (2_000, 1_000)}, "the shortest, above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Augmentation(**values)
