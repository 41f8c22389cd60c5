"""A task of fine-tuning: its head, its labelled speech and its scores; the training loop is the same."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from experiments.data.transcribed import Transcribed
from experiments.runs.folder import RunFolder
from w2v_jax.config import ModelConfig
from w2v_jax.data.batches.labelled import LabelledBatches
from w2v_jax.objective.pretraining import Objective
from w2v_jax.recognition.training import TrainingState

Line = dict[str, Any]
# Fields that the files of older versions may lack.
MODEL_FIELDS = tuple(field.name for field in dataclasses.fields(ModelConfig))


class FineTuningTask(Protocol):
    """The task of a fine-tuning run: its loss, its data and its scores.

    Attributes:
        objective: loss over parameters {"encoder", "head"}; its state is the head's running statistics.
        train: training batches.
        splits: clips and labels of train, dev and test, and of `clients.WITHHELD` with --personalise.
        score_name, lower_is_better: of the score of a few clips, such as "accuracy".
    """

    objective: Objective
    train: LabelledBatches
    splits: dict[str, Transcribed]
    score_name: str
    lower_is_better: bool

    def one_shape(self) -> LabelledBatches:
        """Make training batches of which any few clips can be had in one shape."""
        ...

    def score(self, state: TrainingState, indices: Sequence[int]) -> float:
        """Score some of the withheld clips, as a share."""
        ...

    def facts(self) -> dict[str, Any]:
        """Summarise the labels for data.json."""
        ...

    def pin(self, folder: RunFolder) -> None:
        """Write the head's configuration and the labels into the run's folder."""
        ...

    def described(self) -> str:
        """Describe the labels for the first line of a run."""
        ...

    def validate(self, state: TrainingState) -> dict[str, Any]:
        """Score dev; `loss` is among the results, which come into metrics.jsonl after `dev_`."""
        ...

    def best(self, lines: list[Line]) -> Line:
        """Find the validation whose checkpoint is scored."""
        ...

    def told(self, line: Line) -> str:
        """Describe the scores of a validation."""
        ...

    def finish(
        self, folder: RunFolder, state: TrainingState, lines: list[Line], personalised: Line | None
    ) -> None:
        """Score test with the chosen checkpoint, write results and report, and print the scores.

        `personalised` is the result of `personalisation.personalised`, if there is one.
        """
        ...


def or_infinite(value: float | None) -> float:
    """Read a value of a log, where null stands for a value that is not finite."""
    return float("inf") if value is None or not np.isfinite(value) else float(value)
