"""A recognizer over labelled clips: texts, error rates, who and what is recognised worst."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.data.transcribed import Transcribed
from w2v_jax.data.batches.labelled import LabelledBatches
from w2v_jax.data.common_voice import column
from w2v_jax.recognition.ctc import Recognizer, decode_batch
from w2v_jax.recognition.error_rates import Errors, alignment, character_errors, word_errors
from w2v_jax.recognition.training import TrainingState
from w2v_jax.text.tokenizers import Tokenizer

WORST_SHOWN = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recognised:
    """What a recognizer made of a split."""

    transcribed: Transcribed
    hypotheses: list[str]
    words: list[Errors]
    characters: list[Errors]
    sums: dict[str, float]

    def rates(self) -> dict[str, Any]:
        """WER, CER and loss over the whole split."""
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
        """Rates of every speaker, the worst WER first."""
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
        """The utterances with most word edits a word, then most character edits."""
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


def make_recognise(recognizer: Recognizer) -> Callable:
    """The jitted forward pass of `recognise`."""
    return jax.jit(recognizer.recognise)


def recognise(
    run: Callable,
    recognizer: Recognizer,
    state: TrainingState,
    batches: LabelledBatches,
    transcribed: Transcribed,
    tokenizer: Tokenizer,
) -> Recognised:
    """Greedy transcripts of every clip, scored."""
    hypotheses = [""] * len(transcribed.texts)
    total = None
    for indices, batch in batches.in_order():
        best, num_frames, sums = run(state.parameters, state.statistics, batch)
        total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        best, num_frames = jax.device_get((best, num_frames))
        rows = zip(indices, decode_batch(best, num_frames), strict=False)
        for index, ids in rows:
            hypotheses[index] = " ".join(tokenizer.decode(ids).split())
    return Recognised(
        transcribed=transcribed,
        hypotheses=hypotheses,
        words=_each(word_errors, transcribed.texts, hypotheses),
        characters=_each(character_errors, transcribed.texts, hypotheses),
        sums=recognizer.objective.summarise(jax.device_get(total)),
    )


def _each(errors: Callable, references: Sequence[str], hypotheses: Sequence[str]) -> list[Errors]:
    return [errors(r, h) for r, h in zip(references, hypotheses, strict=True)]
