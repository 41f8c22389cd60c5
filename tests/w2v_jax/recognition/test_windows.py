"""Windows over long recordings: every frame once, with context, and no seam."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.configs import SMALL, SMALL_BEST_RQ
from w2v_jax.config import BEST_RQ_TINY, TINY
from w2v_jax.model import log_mel
from w2v_jax.recognition.ctc import RecognizerConfig, recognizer
from w2v_jax.recognition.heads import HeadConfig
from w2v_jax.recognition.windows import CONTEXT_SAMPLES, FRAME_SAMPLES, plan, stitched_scores, whole_frames

CONTEXT = CONTEXT_SAMPLES // FRAME_SAMPLES


def log_mel_frames(num_samples):
    return max(0, (num_samples - 400) // 160 + 1) // 2


# Frames of a recording, and samples from one to the next.
COUNTS = {
    "encoder": (TINY.num_frames, TINY.frame_samples),
    "log-mel": (log_mel_frames, FRAME_SAMPLES),
    "best-rq": (BEST_RQ_TINY.num_frames, BEST_RQ_TINY.frame_samples),
}


def counting(num_frames_of, frame_samples):
    """Scores that tell where in the recording, and where in the window, a frame lies."""

    def scores(waveform, num_samples):
        assert waveform.shape[0] == 1
        length = int(num_samples[0])
        assert 0 < length <= waveform.shape[1]
        assert not waveform[0, length:].any()
        total, frames = num_frames_of(waveform.shape[1]), num_frames_of(length)
        places = np.arange(total)
        starts = waveform[0, places * frame_samples]
        # Content, frames before it in the window, frames after it.
        found = np.stack([starts, places, frames - 1 - places], -1)
        return found[None].astype(np.float32), np.array([frames], np.int32)

    return scores


@given(
    num_samples=st.integers(400, 60 * 16_000),
    window_frames=st.integers(2 * CONTEXT + 1, 1500),
    features=st.sampled_from(sorted(COUNTS)),
)
@settings(deadline=None)
def test_every_frame_comes_once_with_context_around_it(num_samples, window_frames, features):
    counts, frame_samples = COUNTS[features]
    samples = np.arange(num_samples, dtype=np.float32) + 1  # exact up to 2 ** 24
    scores = counting(counts, frame_samples)
    found = stitched_scores(samples, scores, window_frames * frame_samples, frame_samples)
    total, context = counts(num_samples), CONTEXT_SAMPLES // frame_samples
    np.testing.assert_array_equal(found[:, 0], np.arange(total) * frame_samples + 1)
    index = np.arange(total)
    # A frame hears the context before and after it, or as much as the recording has.
    assert (found[:, 1] >= np.minimum(index, context)).all()
    # A window's last frame may reach over its edge, so one less is kept for certain.
    assert (found[:, 2] >= np.minimum(total - 1 - index, context - 2)).all()


@given(st.integers(1, 40 * 16_000), st.integers(2 * CONTEXT + 1, 1500))
def test_windows_cover_the_recording_and_keep_each_part_once(num_samples, window_frames):
    window_samples = window_frames * FRAME_SAMPLES
    windows = plan(num_samples, window_samples)
    assert windows[0].start == windows[0].keep_from == 0
    assert windows[-1].stop == num_samples
    assert windows[-1].keep_to is None
    for before, after in itertools.pairwise(windows):
        assert before.keep_to == after.keep_from
        assert after.keep_from - after.start == CONTEXT_SAMPLES == before.stop - before.keep_to
    for window in windows:
        assert window.start % FRAME_SAMPLES == 0
        assert 0 < window.stop - window.start <= window_samples
        assert window.keep_from < window.stop


@pytest.mark.parametrize("window_samples", [2 * CONTEXT_SAMPLES, 2 * CONTEXT_SAMPLES + 100, 0])
def test_windows_of_context_alone_are_refused(window_samples):
    with pytest.raises(ValueError, match="more than the context"):
        plan(10**6, window_samples)


@given(st.integers(0, 10**7))
def test_whole_frames_are_the_nearest_from_below(num_samples):
    found = whole_frames(num_samples)
    assert found % FRAME_SAMPLES == 0
    assert 0 <= num_samples - found < FRAME_SAMPLES


def test_few_shapes_are_asked_for():
    shapes = set()

    def scores(waveform, num_samples):
        shapes.add(waveform.shape[1])
        return counting(TINY.num_frames, FRAME_SAMPLES)(waveform, num_samples)

    for num_samples in range(3 * 16_000, 30 * 16_000, 7_001):
        stitched_scores(np.ones(num_samples, np.float32), scores, 10 * 16_000)
    assert len(shapes) <= 5


# Frames of 320 samples from few channels, and of 640 from log-mel spectra.
LOG_MEL_MODEL = SMALL_BEST_RQ.replace(log_mel_stack=4, num_layers=1)
MODEL = SMALL.replace(
    conv_channels=(8,) * 7,
    conv_kernels=TINY.conv_kernels,
    conv_strides=TINY.conv_strides,
    masked_group_norm=True,
    num_layers=1,
)


@functools.cache
def real(features):
    config = RecognizerConfig(
        model=LOG_MEL_MODEL if features == "best-rq" else MODEL,
        head=HeadConfig(num_tokens=5, num_blocks=1, width=8),
        features="encoder" if features == "best-rq" else features,
    )
    assert config.frame_samples == COUNTS[features][1]
    made = recognizer(config)
    parameters, state = jax.jit(made.objective.init)(jax.random.key(0))
    scores = jax.jit(made.scores)
    return lambda waveform, num_samples: scores(parameters, state, waveform, num_samples)


@pytest.mark.parametrize("features", sorted(COUNTS))
def test_a_short_recording_is_one_plain_forward_pass(features):
    scores, samples = (
        real(features),
        np.random.default_rng(0).standard_normal(20_123).astype(np.float32) * 0.1,
    )
    count, frame_samples = COUNTS[features]
    found = stitched_scores(samples, scores, 5 * 16_000, frame_samples)
    expected, num_frames = scores(jnp.asarray(samples[None]), jnp.array([len(samples)]))
    assert int(num_frames[0]) == count(len(samples)) == len(found)
    np.testing.assert_allclose(found, expected[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("features", sorted(COUNTS))
def test_a_long_recording_has_all_its_frames(features):
    count, frame_samples = COUNTS[features]
    for seconds in (6.0, 9.73, 13.001):
        num_samples = round(seconds * 16_000)
        samples = np.random.default_rng(1).standard_normal(num_samples).astype(np.float32) * 0.1
        found = stitched_scores(samples, real(features), 6 * 16_000, frame_samples)
        assert found.shape == (count(num_samples), 5)
        assert np.isfinite(found).all()


def test_the_slow_count_of_log_mel_frames_is_the_right_one():
    lengths = np.arange(0, 3000, 7)
    assert log_mel.frame_lengths(jnp.asarray(lengths)).tolist() == [log_mel_frames(n) for n in lengths]
