"""Score recordings of any length in windows that overlap."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

FRAME_SAMPLES = 320  # frames of 20 ms: those of convolutions, and of log-mel features by default
CONTEXT_SAMPLES = 2 * 16_000  # at each inner edge of a window, heard but not transcribed
STEP_SAMPLES = 2 * 16_000  # a short recording is padded to a multiple, so that few shapes are compiled


class Window(NamedTuple):
    """A window of a recording, and the part of it whose frames are kept; in samples."""

    start: int
    stop: int
    keep_from: int
    keep_to: int | None


def whole_frames(num_samples: int, frame_samples: int = FRAME_SAMPLES) -> int:
    """Round a number of samples down to whole frames, as windows need."""
    return num_samples // frame_samples * frame_samples


def plan(num_samples: int, window_samples: int, frame_samples: int = FRAME_SAMPLES) -> list[Window]:
    """Divide a recording into windows; each keeps its middle, and the first and last keep their ends.

    Args:
        num_samples: of the recording.
        window_samples: of a window.
        frame_samples: samples from one frame to the next.

    Raises:
        ValueError: windows or their context are not whole frames, or windows hold nothing but context.
    """
    if CONTEXT_SAMPLES % frame_samples:
        raise ValueError(f"frames of {frame_samples} samples do not divide the context of {CONTEXT_SAMPLES}")
    if window_samples % frame_samples or window_samples <= 2 * CONTEXT_SAMPLES:
        raise ValueError(f"windows of {window_samples} samples: give whole frames, more than the context")
    found, start = [], 0
    step = window_samples - 2 * CONTEXT_SAMPLES
    while True:
        stop = min(start + window_samples, num_samples)
        last = stop == num_samples
        keep_from = start + CONTEXT_SAMPLES if start else 0
        found.append(Window(start, stop, keep_from, None if last else stop - CONTEXT_SAMPLES))
        if last:
            return found
        start += step


def stitched_scores(
    samples: np.ndarray, scores: Callable, window_samples: int, frame_samples: int = FRAME_SAMPLES
) -> np.ndarray:
    """Compute the scores of every frame of a recording, float32 [frame, token].

    Args:
        samples: float32 [sample] at 16 kHz.
        scores: (waveform [1, sample], num_samples [1]) -> (scores [1, frame, token], num_frames [1]).
        window_samples: length of a window; a shorter recording is one window.
        frame_samples: samples from one frame to the next.
    """
    pieces = []
    for window in plan(len(samples), window_samples, frame_samples):
        length = window.stop - window.start
        padded = min(-(-length // STEP_SAMPLES) * STEP_SAMPLES, window_samples)
        waveform = np.zeros((1, padded), np.float32)
        waveform[0, :length] = samples[window.start : window.stop]
        found, num_frames = jax.device_get(scores(waveform, np.array([length], np.int32)))
        first = (window.keep_from - window.start) // frame_samples
        end = int(num_frames[0])
        if window.keep_to is not None:
            end = (window.keep_to - window.start) // frame_samples
        pieces.append(found[0, first:end])
    return np.concatenate(pieces)
