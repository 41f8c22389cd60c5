"""Keyword spotting, one class a clip, as a task of fine-tuning."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments.data import keywords
from experiments.data.transcribed import shuffled
from experiments.models.keyword_spotters import SETTINGS
from experiments.recognition import keyword_report
from experiments.recognition.clients.labelled_clients import WITHHELD, withhold
from experiments.recognition.keyword_scoring import Classified, KeywordScorer
from experiments.recognition.labelled_splits import batch_shape, training_batches
from experiments.recognition.recipes import FineTuningRecipe
from experiments.recognition.task import MODEL_FIELDS, Line, or_infinite
from experiments.runs.folder import RunFolder
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.data.batches.labelled import LabelledBatches
from w2v_jax.recognition.keywords import KeywordHeadConfig, KeywordSpotterConfig, keyword_spotter
from w2v_jax.recognition.training import TrainingState


class KeywordTask:
    """Names the class of a clip; see `task.FineTuningTask`."""

    score_name, lower_is_better = "accuracy", False

    def __init__(self, settings: dict[str, Any], model: ModelConfig, recipe: FineTuningRecipe):
        self._settings = settings
        held = keywords.load(
            settings["data"],
            settings["column"],
            min_samples=model.receptive_field_samples,
            max_samples=round(settings["max_seconds"] * SAMPLE_RATE_HZ),
            seed=settings["seed"],
            minutes=settings["train_minutes"],
            share=None if settings["labels"] is None else settings["labels"] / 100,
        )
        if settings["shuffle_transcripts"]:
            held.splits["train"] = shuffled(held.splits["train"], settings["seed"])
        if settings["personalise"] is not None:
            held.splits["train"], held.splits[WITHHELD] = withhold(held.splits["train"], settings["seed"])
        self._held, self.splits = held, held.splits
        self._shape = shape = batch_shape(settings, recipe)
        self.train = training_batches(held.splits["train"], held.labels("train"), settings, shape)
        self._evaluation = {
            split: LabelledBatches(held.splits[split].clips, held.labels(split), **shape)
            for split in held.splits
            if split != "train"
        }
        self.config = KeywordSpotterConfig(
            model=model,
            head=KeywordHeadConfig(
                num_classes=len(held.classes),
                pooling=settings["pooling"],
                segments=settings["segments"],
                weighted_layers=settings["layers"] == "weighted",
                num_blocks=settings["head_blocks"],
                width=settings["head_width"] or recipe.head_width,
            ),
            features=settings["features"],
            frozen=settings["freeze"],
            label_smoothing=settings["label_smoothing"],
        )
        spotter = keyword_spotter(self.config)
        self.objective = spotter.objective
        self._scorer = KeywordScorer(spotter, held.classes)

    def one_shape(self) -> LabelledBatches:
        labels = self._held.labels("train")
        return training_batches(
            self.splits["train"], labels, self._settings, self._shape | {"num_buckets": 1}
        )

    def facts(self) -> dict[str, Any]:
        return {
            "classes": len(self._held.classes),
            "clips_of_unseen_classes": self._held.unseen,
            "test_speakers_in_train": self._held.shared_speakers,
        }

    def pin(self, folder: RunFolder) -> None:
        kept = {**dataclasses.asdict(self.config), "classes": self._held.classes}
        folder.pin(SETTINGS, kept, MODEL_FIELDS)

    def described(self) -> str:
        """Count the classes, the clips of classes that training lacks, and the speakers that train shares."""
        parts = [f"{len(self._held.classes)} classes of column {self._settings['column']}"]
        for split, unseen in self._held.unseen.items():
            if unseen:
                names = ", ".join(list(unseen)[: keywords.EXAMPLES_TOLD])
                parts.append(
                    f"{sum(unseen.values())} clips of {split} are of {len(unseen)} classes that training "
                    f"lacks (such as {names}) and count as errors"
                )
        if shared := self._held.shared_speakers:
            parts.append(f"{shared} speakers of test are in train too")
        return ", ".join(parts)

    def classify(self, split: str, state: TrainingState) -> Classified:
        """Name the class of every clip of a split."""
        return self._scorer.classify(state, self._evaluation[split], self.splits[split])

    def score(self, state: TrainingState, indices: Sequence[int]) -> float:
        held = self._evaluation[WITHHELD]
        return self._scorer.classify(state, held, self.splits[WITHHELD], indices).scores()["accuracy"]

    def validate(self, state: TrainingState) -> dict[str, Any]:
        scores = self.classify("dev", state).scores()
        return {name: scores[name] for name in ("loss", "accuracy")}

    def best(self, lines: list[Line]) -> Line:
        return best_line(lines, self._settings["select_by"])

    def told(self, line: Line) -> str:
        return f"accuracy {100 * line['dev_accuracy']:.1f} %"

    def finish(
        self, folder: RunFolder, state: TrainingState, lines: list[Line], personalised: Line | None
    ) -> None:
        keyword_report.finish(folder, self.classify("test", state), self.best(lines), lines, personalised)


def best_line(lines: list[Line], select_by: str) -> Line:
    """Find the validation with the highest accuracy or the lowest loss; the other breaks ties."""

    def key(line: Line) -> tuple[float, ...]:
        accuracy = -line["dev_accuracy"]
        loss = or_infinite(line["dev_loss"])
        return (accuracy, loss) if select_by == "accuracy" else (loss, accuracy)

    return min(lines, key=key)
