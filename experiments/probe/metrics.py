"""The score of a probe: its key in results, its name, and which way is better. Imports no jax."""

import dataclasses
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A score of a task.

    Attributes:
        key: in results; the score on dev has `dev_` before it.
        name: for readers.
        lower_is_better: whether it is an error.
        better, worse: what a probe does that has the better or the worse score, as predicates.
        about: what the score is, as a sentence.
    """

    key: str
    name: str
    lower_is_better: bool
    better: str
    worse: str
    about: str

    @property
    def dev_key(self) -> str:
        return f"dev_{self.key}"

    def best(self, scores: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Find the first of the scores that is best on dev."""
        return (min if self.lower_is_better else max)(scores, key=lambda score: score[self.dev_key])

    def improves(self, difference: float) -> bool:
        """Tell whether a difference is for the better."""
        return (difference < 0) == self.lower_is_better


ACCURACY = Metric(
    key="accuracy",
    name="accuracy",
    lower_is_better=False,
    better="is better than",
    worse="is WORSE than",
    about="Accuracy is the share of the test clips that are classified rightly.",
)
CHARACTER_ERROR_RATE = Metric(
    key="character_error_rate",
    name="character error rate",
    lower_is_better=True,
    better="errs less than",
    worse="errs MORE than",
    about="The character error rate is the number of edits over the number of characters of test: lower is "
    "better.",
)


def metric_of(task: str) -> Metric:
    """Find the score of a task of probes."""
    return CHARACTER_ERROR_RATE if task == "characters" else ACCURACY
