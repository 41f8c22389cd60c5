"""Score a keyword spotter on a split: accuracy, by speaker and by class, and what was confused."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.transcribed import Transcribed, selected
from experiments.report.statistics import interval
from w2v_jax.data.batches.labelled import LabelledBatches
from w2v_jax.data.common_voice import column
from w2v_jax.recognition.keywords import KeywordSpotter
from w2v_jax.recognition.training import TrainingState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classified:
    """The classes that a keyword spotter gave the clips of a split.

    Attributes:
        held: the split; its texts are the right classes.
        classes: those that the spotter knows.
        probabilities: float32 [clip, class].
        loss: mean over the clips of a known class, in nats.
    """

    held: Transcribed
    classes: Sequence[str]
    probabilities: np.ndarray
    loss: float

    @property
    def guesses(self) -> list[str]:
        """The most probable class of every clip."""
        return [self.classes[int(index)] for index in self.probabilities.argmax(1)]

    @property
    def right(self) -> np.ndarray:
        """Tell whether each clip's guess is its class, bool [clip]; never for an unseen class."""
        return np.array(self.guesses) == np.array(self.held.texts)

    def scores(self) -> dict[str, Any]:
        """Compute the accuracy over all clips, and its mean over speakers with an interval.

        `speaker_interval` is the half width of Student's t interval of 95 % over speakers; None for one
        speaker.
        """
        rows, right = self.by_speaker(), self.right
        shares = [row["accuracy"] for row in rows]
        known = set(self.classes)
        return {
            "accuracy": float(right.mean()),
            "loss": self.loss,
            "correct": int(right.sum()),
            "clips": len(right),
            "speakers": len(rows),
            "speaker_mean": float(np.mean(shares)),
            "speaker_interval": interval(shares),
            "of_unseen_classes": sum(name not in known for name in self.held.texts),
        }

    def by_speaker(self) -> list[dict[str, Any]]:
        """Compute the accuracy of every speaker, the worst first."""
        return self._by(column(self.held.clips, "client_id"), "speaker")

    def by_class(self) -> list[dict[str, Any]]:
        """Compute the accuracy of every class, the worst first."""
        return self._by(self.held.texts, "class")

    def confusions(self) -> list[dict[str, Any]]:
        """Count the wrong guesses by class and guess, the most frequent first."""
        wrong = Counter(
            pair for pair in zip(self.held.texts, self.guesses, strict=True) if pair[0] != pair[1]
        )
        rows = [{"class": pair[0], "guess": pair[1], "clips": count} for pair, count in wrong.items()]
        return sorted(rows, key=lambda row: (-row["clips"], row["class"], row["guess"]))

    def _by(self, names: Sequence[str], title: str) -> list[dict[str, Any]]:
        right, held = self.right, np.array(names)
        rows = [
            {
                title: str(name),
                "clips": int((held == name).sum()),
                "accuracy": float(right[held == name].mean()),
            }
            for name in np.unique(held)
        ]
        return sorted(rows, key=lambda row: (row["accuracy"], row[title]))


class KeywordScorer:
    """Classifies whole splits; programs are compiled once a shape."""

    def __init__(self, spotter: KeywordSpotter, classes: Sequence[str]):
        """Prepare the program; nothing is compiled before it is used."""
        self._classify, self._summarise = jax.jit(spotter.classify), spotter.objective.summarise
        self._classes = classes

    def classify(
        self,
        state: TrainingState,
        batches: LabelledBatches,
        held: Transcribed,
        among: Sequence[int] | None = None,
    ) -> Classified:
        """Classify every clip of a split, or those among some indices."""
        found = np.zeros((len(held.texts), len(self._classes)), np.float32)
        total = None
        for indices, batch in batches.in_order(among):
            probabilities, sums = self._classify(state.parameters, state.statistics, batch)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
            found[indices] = np.asarray(probabilities)[: len(indices)]
        loss = self._summarise(jax.device_get(total))["loss"]
        if among is not None:
            held, found = selected(held, among), found[np.array(among)]
        return Classified(held=held, classes=self._classes, probabilities=found, loss=loss)
