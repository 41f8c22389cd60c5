"""Transcribe whole files with a fine-tuned run."""

import math
import sys
from pathlib import Path

import jax
import numpy as np

from experiments.models.recognizers import open_recognizer
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data import audio
from w2v_jax.errors import UserError
from w2v_jax.recognition import windows
from w2v_jax.recognition.ctc import collapse


class Transcriber:
    """Loads a run's best checkpoint once, and transcribes files of any length."""

    def __init__(self, run: Path, window_seconds: float):
        """Open a run of `w2v-jax finetune`.

        Raises:
            UserError: the folder holds no such run, or the run has no validated checkpoint yet.
        """
        opened = open_recognizer(run, f"--run {run}")
        self._config, self._tokenizer = opened.config, opened.tokenizer
        self._frame_samples = self._config.frame_samples
        if windows.CONTEXT_SAMPLES % self._frame_samples:
            raise UserError(
                f"--run {run} has frames of {self._frame_samples} samples: windows, whose edges overlap by "
                f"{windows.CONTEXT_SAMPLES}, do not fit them"
            )
        parameters, statistics = opened.best_checkpoint()
        scores = jax.jit(opened.recognizer.scores)
        self._scores = lambda waveform, num_samples: scores(parameters, statistics, waveform, num_samples)
        self._window_samples = windows.whole_frames(
            round(window_seconds * SAMPLE_RATE_HZ), self._frame_samples
        )

    def file(self, path: Path) -> str:
        """Transcribe an audio file.

        Raises:
            ClipError: the file is no audio, or too short.
        """
        recording = audio.read(
            path, min_samples=self._config.model.receptive_field_samples, max_seconds=math.inf
        )
        for reason, detail in recording.changes:
            print(f"{path}: {reason} ({detail})", file=sys.stderr)
        return self.samples(audio.to_float(recording.samples))

    def samples(self, samples: np.ndarray) -> str:
        """Transcribe samples, float32 [sample] at 16 kHz."""
        logits = windows.stitched_scores(samples, self._scores, self._window_samples, self._frame_samples)
        best = logits.argmax(-1)
        return " ".join(self._tokenizer.decode(collapse(best, len(best))).split())
