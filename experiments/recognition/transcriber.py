"""Transcribe or classify whole files with a fine-tuned run."""

import math
import sys
from pathlib import Path

import jax
import numpy as np

from experiments.models.keyword_spotters import open_keyword_spotter
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
        return self.samples(read_samples(path, self._config.model.receptive_field_samples))

    def samples(self, samples: np.ndarray) -> str:
        """Transcribe samples, float32 [sample] at 16 kHz."""
        logits = windows.stitched_scores(samples, self._scores, self._window_samples, self._frame_samples)
        best = logits.argmax(-1)
        return " ".join(self._tokenizer.decode(collapse(best, len(best))).split())


class Classifier:
    """Loads a keyword run's best checkpoint once, and names the class of files of any length."""

    def __init__(self, run: Path, window_seconds: float):
        """Open a keyword run of `w2v-jax finetune`.

        Raises:
            UserError: the run has no validated checkpoint yet, or its files do not fit together.
        """
        opened = open_keyword_spotter(run, f"--run {run}")
        self._shortest = opened.config.model.receptive_field_samples
        self._classes = opened.classes
        parameters, statistics = opened.best_checkpoint()
        scores = jax.jit(opened.spotter.scores)
        self._scores = lambda waveform, num_samples: scores(parameters, statistics, waveform, num_samples)
        self._window_samples = round(window_seconds * SAMPLE_RATE_HZ)

    def file(self, path: Path) -> str:
        """Name the class of an audio file and its probability, with a tab between them.

        Raises:
            ClipError: the file is no audio, or too short.
        """
        samples = read_samples(path, self._shortest)
        if (count := -(-len(samples) // self._window_samples)) > 1:
            print(f"{path}: heard in {count} windows, whose mean probability is given", file=sys.stderr)
        probabilities = self.probabilities(samples)
        best = int(probabilities.argmax())
        return f"{self._classes[best]}\t{probabilities[best]:.3f}"

    def probabilities(self, samples: np.ndarray) -> np.ndarray:
        """Compute the probability of each class, float64 [class], of samples, float32 [sample] at 16 kHz.

        A long recording is heard in windows side by side; its probabilities are their mean, weighted by their
        lengths. A last window that is too short for the model is left out.
        """
        total, heard = np.zeros(len(self._classes)), 0
        for start in range(0, len(samples), self._window_samples):
            piece = samples[start : start + self._window_samples]
            if start and len(piece) < self._shortest:
                break
            padded = -(-len(piece) // windows.STEP_SAMPLES) * windows.STEP_SAMPLES
            waveform = np.zeros((1, padded), np.float32)
            waveform[0, : len(piece)] = piece
            logits = np.asarray(self._scores(waveform, np.array([len(piece)], np.int32)), np.float64)[0]
            shares = np.exp(logits - logits.max())
            total += len(piece) * shares / shares.sum()
            heard += len(piece)
        return total / heard


def read_samples(path: Path, min_samples: int) -> np.ndarray:
    """Read an audio file as float32 [sample] at 16 kHz; print what was changed.

    Raises:
        ClipError: the file is no audio, or shorter than `min_samples`.
    """
    recording = audio.read(path, min_samples=min_samples, max_seconds=math.inf)
    for reason, detail in recording.changes:
        print(f"{path}: {reason} ({detail})", file=sys.stderr)
    return audio.to_float(recording.samples)
