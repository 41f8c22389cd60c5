"""A fine-tuned run as a transcriber of whole files."""

import math
from pathlib import Path

import jax
import numpy as np

from experiments.run_folder import read_json
from w2v_jax import windows
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.ctc import RecognizerConfig, collapse, recognizer
from w2v_jax.data import audio
from w2v_jax.errors import UserError
from w2v_jax.text import load_tokenizer


class Transcriber:
    """Loads a run's best checkpoint once; transcribes files of any length."""

    def __init__(self, run: Path, window_seconds: float):
        """Open a run of `w2v-jax finetune`.

        Raises:
            UserError: it is none, or has no validated checkpoint yet.
        """
        if not (run / "recognizer.json").is_file():
            raise UserError(f"--run {run} is not a run folder of w2v-jax finetune (no recognizer.json)")
        try:
            self._config = RecognizerConfig.from_dict(read_json(run / "recognizer.json"))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{run / 'recognizer.json'} is not what w2v-jax finetune writes") from error
        self._tokenizer, _ = load_tokenizer(run)
        if math.prod(self._config.model.conv_strides) != windows.FRAME_SAMPLES:
            raise UserError(f"--run {run} has frames of another length than 20 ms: windows do not fit them")
        made = recognizer(self._config)
        best = Checkpoints(run / "best") if (run / "best").is_dir() else None
        latest = best.latest() if best else None
        if best is None or latest is None:
            raise UserError(f"--run {run} has no validated checkpoint yet: let its fine-tuning go on first")
        like = jax.eval_shape(made.objective.init, jax.random.key(0))
        try:
            held = best.restore(latest, {"parameters": like[0], "statistics": like[1]})
        except (ValueError, KeyError) as error:
            raise UserError(
                f"--run {run}: its checkpoint is of another architecture than its recognizer.json says"
            ) from error
        best.close()
        scores = jax.jit(made.scores)
        self._scores = lambda waveform, num_samples: scores(
            held["parameters"], held["statistics"], waveform, num_samples
        )
        self._window_samples = windows.whole_frames(round(window_seconds * SAMPLE_RATE_HZ))

    def file(self, path: Path) -> str:
        """The text of an audio file.

        Raises:
            ClipError: it is no audio, or too short.
        """
        samples = audio.decode(
            path, min_samples=self._config.model.receptive_field_samples, max_seconds=math.inf
        )
        return self.samples(audio.to_float(samples))

    def samples(self, samples: np.ndarray) -> str:
        """The text of float32 [sample] at 16 kHz."""
        logits = windows.stitched_scores(samples, self._scores, self._window_samples)
        best = logits.argmax(-1)
        return " ".join(self._tokenizer.decode(collapse(best, len(best))).split())
