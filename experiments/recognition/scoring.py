"""Score a recognizer on labelled clips: texts, error rates, the worst speakers and utterances."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.transcribed import Transcribed, selected
from w2v_jax.batch import Sums, Total
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.audio import to_float
from w2v_jax.data.batches.labelled import LabelledBatches
from w2v_jax.data.common_voice import column, lengths, take
from w2v_jax.recognition import windows
from w2v_jax.recognition.ctc import Recognizer, collapse, ctc_losses, decode_batch
from w2v_jax.recognition.error_rates import Errors, alignment, character_errors, word_errors
from w2v_jax.recognition.training import TrainingState
from w2v_jax.text.tokenizers import Tokenizer

WORST_SHOWN = 20
# Attention's memory grows with the square of a clip's length: longer clips are recognised in windows.
LONGEST_WHOLE_SECONDS = 40.0
WINDOW_SECONDS = 20
# Scores and labels of long clips are padded to multiples of these, so that few losses are compiled.
FRAMES_ROUNDED, LABELS_ROUNDED = 1_000, 250


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationClips:
    """A split to recognise: whole clips in batches, and the clips that are too long for that.

    Attributes:
        batches: clips of up to LONGEST_WHOLE_SECONDS.
        whole: their indices in the split.
        long: indices of the longer clips in the split.
        labels: token ids of every clip of the split.
    """

    batches: LabelledBatches
    whole: list[int]
    long: list[int]
    labels: Sequence[Sequence[int]]


def evaluation_clips(
    transcribed: Transcribed, labels: Sequence[Sequence[int]], frame_samples: int, **settings: Any
) -> EvaluationClips:
    """Divide a split by the length of its clips.

    Args:
        transcribed: the split.
        labels: token ids of every clip.
        frame_samples: samples from one frame to the next; where they do not divide the windows' context,
            every clip is whole.
        settings: the settings of LabelledBatches.
    """
    seconds = lengths(transcribed.clips) / SAMPLE_RATE_HZ
    too_long = (seconds > LONGEST_WHOLE_SECONDS) & (windows.CONTEXT_SAMPLES % frame_samples == 0)
    whole = np.flatnonzero(~too_long).tolist()
    return EvaluationClips(
        batches=LabelledBatches(take(transcribed.clips, whole), [labels[i] for i in whole], **settings),
        whole=whole,
        long=np.flatnonzero(too_long).tolist(),
        labels=labels,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recognised:
    """The transcripts that a recognizer gave for a split, with their errors."""

    transcribed: Transcribed
    hypotheses: list[str]
    words: list[Errors]
    characters: list[Errors]
    sums: dict[str, float]

    def rates(self) -> dict[str, Any]:
        """Compute WER, CER and loss over the whole split."""
        words, characters = sum(self.words, Errors(0, 0)), sum(self.characters, Errors(0, 0))
        return {
            "wer": words.rate,
            "cer": characters.rate,
            "loss": self.sums["loss"],
            "word_edits": words.edits,
            "words": words.length,
            "character_edits": characters.edits,
            "characters": characters.length,
            "utterances": len(self.hypotheses),
            "empty_hypotheses": sum(not text for text in self.hypotheses),
            "infeasible": int(self.sums["infeasible"]),
        }

    def by_speaker(self) -> list[dict[str, Any]]:
        """Compute the error rates of every speaker, the worst WER first."""
        found: dict[str, list[int]] = {}
        for index, speaker in enumerate(column(self.transcribed.clips, "client_id")):
            found.setdefault(speaker, []).append(index)
        rows = []
        for speaker, indices in found.items():
            words = sum((self.words[i] for i in indices), Errors(0, 0))
            characters = sum((self.characters[i] for i in indices), Errors(0, 0))
            rows.append(
                {
                    "speaker": speaker,
                    "utterances": len(indices),
                    "words": words.length,
                    "wer": words.rate,
                    "cer": characters.rate,
                }
            )
        return sorted(rows, key=lambda row: (-row["wer"], -row["cer"], row["speaker"]))

    def worst(self) -> list[dict[str, Any]]:
        """List the utterances with the highest WER, then the highest CER."""
        paths = column(self.transcribed.clips, "path")
        order = sorted(
            range(len(self.hypotheses)),
            key=lambda i: (-self.words[i].rate, -self.characters[i].rate, paths[i]),
        )
        return [
            {
                "path": paths[i],
                "wer": self.words[i].rate,
                "cer": self.characters[i].rate,
                "alignment": alignment(self.transcribed.texts[i], self.hypotheses[i]),
            }
            for i in order[:WORST_SHOWN]
        ]


class Scorer:
    """Recognises whole splits greedily; programs are compiled once a shape."""

    def __init__(
        self, recognizer: Recognizer, tokenizer: Tokenizer, frame_samples: int = windows.FRAME_SAMPLES
    ):
        """Prepare the programs; nothing is compiled before it is used."""
        self._recognizer, self._tokenizer = recognizer, tokenizer
        self._frame_samples = frame_samples
        self._batch, self._window = jax.jit(recognizer.recognise), jax.jit(recognizer.scores)
        self._losses = jax.jit(ctc_losses)

    def recognise(
        self,
        state: TrainingState,
        clips: EvaluationClips,
        transcribed: Transcribed,
        among: Sequence[int] | None = None,
    ) -> Recognised:
        """Transcribe every clip of a split, or those among some indices, and score the transcripts."""
        hypotheses = [""] * len(transcribed.texts)
        total, asked = None, None if among is None else set(among)
        batched = None if asked is None else [i for i, index in enumerate(clips.whole) if index in asked]
        for indices, batch in clips.batches.in_order(batched):
            best, num_frames, sums = self._batch(state.parameters, state.statistics, batch)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
            best, num_frames = jax.device_get((best, num_frames))
            for index, ids in zip(indices, decode_batch(best, num_frames), strict=False):
                hypotheses[clips.whole[index]] = self._text(ids)
        for index in clips.long if asked is None else [index for index in clips.long if index in asked]:
            samples = to_float(transcribed.clips[index].samples)
            ids, sums = self._long(state, samples, clips.labels[index])
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
            hypotheses[index] = self._text(ids)
        if among is not None:
            transcribed, hypotheses = selected(transcribed, among), [hypotheses[index] for index in among]
        return Recognised(
            transcribed=transcribed,
            hypotheses=hypotheses,
            words=_each(word_errors, transcribed.texts, hypotheses),
            characters=_each(character_errors, transcribed.texts, hypotheses),
            sums=self._recognizer.objective.summarise(jax.device_get(total)),
        )

    def _text(self, ids: Sequence[int]) -> str:
        return " ".join(self._tokenizer.decode(ids).split())

    def _long(
        self, state: TrainingState, samples: np.ndarray, labels: Sequence[int]
    ) -> tuple[list[int], Sums]:
        """Recognise one clip in windows that overlap; its ids, and its sums as those of a batch."""

        def scores(waveform: np.ndarray, num_samples: np.ndarray) -> Any:
            return self._window(state.parameters, state.statistics, waveform, num_samples)

        window_samples = windows.whole_frames(WINDOW_SECONDS * SAMPLE_RATE_HZ, self._frame_samples)
        logits = windows.stitched_scores(samples, scores, window_samples, self._frame_samples)
        frames, count = len(logits), len(labels)
        padded = np.zeros((1, -(-frames // FRAMES_ROUNDED) * FRAMES_ROUNDED, logits.shape[1]), np.float32)
        padded[0, :frames] = logits
        row = np.zeros((1, max(1, -(-count // LABELS_ROUNDED)) * LABELS_ROUNDED), np.int32)
        row[0, :count] = labels
        losses, feasible = self._losses(
            padded, np.array([frames], np.int32), row, np.array([count], np.int32)
        )
        told = jnp.float32(count if bool(feasible[0]) else 0)
        sums = {
            "loss": Total(losses.sum(), told),
            "infeasible": Total(1.0 - feasible.astype(jnp.float32).sum(), jnp.float32(1.0)),
            "audio_seconds": Total(jnp.float32(len(samples) / SAMPLE_RATE_HZ), jnp.float32(1.0)),
        }
        return collapse(logits.argmax(-1), frames), sums


def _each(errors: Callable, references: Sequence[str], hypotheses: Sequence[str]) -> list[Errors]:
    return [errors(r, h) for r, h in zip(references, hypotheses, strict=True)]
