"""The curves of a training run in one form, whatever tool wrote them. Imports no jax."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

# What a run trains. `unknown` is a log that does not tell.
Kind = Literal["wav2vec2", "best-rq", "ctc", "keywords", "unknown"]
NAMES: dict[Kind, str] = {
    "wav2vec2": "wav2vec 2.0 pre-training",
    "best-rq": "BEST-RQ pre-training",
    "ctc": "speech recognition by CTC",
    "keywords": "keyword spotting",
    "unknown": "an unknown task",
}


@dataclasses.dataclass(frozen=True)
class Spelling:
    """A tool's names for what a finding advises to change."""

    rate: str
    batch: str
    length: str
    masks: str
    codes: str
    clipping: str
    best: str
    start: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves:
    """The curves of one run, and the facts that its checks need.

    Attributes:
        writer: the tool that wrote the log, for readers.
        kind: what the run trains.
        points: in the order of steps. Each has `step` (optimizer updates that the model went through; epochs
            where the log has no updates) and values by name, as `loss` (nats), `accuracy` and `wer` (shares)
            and `codes` (perplexity); `heldout_` stands before those of validation. A value that the tool
            logged although it was not finite is NaN; a value that it did not log is absent.
        spelling: how the tool calls its options.
        unit: of a step: "updates" or "epochs".
        planned: steps of the whole run; None where that is unknown.
        finished: whether the run has ended.
        size: a preset of this project that has the model's shape, such as base; None for other shapes.
        chance_loss: loss in nats of a model that knows nothing; None where that is unknown.
        chance_excess: what an untrained model's random projections add to that loss, at most.
        first_loss: loss in nats of the untrained model; None where only points tell.
        first_accuracy: its accuracy.
        groups, entries: groups or codebooks, and all their entries; 0 where that is unknown.
        peak_rate: largest learning rate of the optimizer; None where that is unknown.
        optimizer: its name, in small letters.
        federated: whether clients train.
        clients: clients of a federated run; None elsewhere.
        clipped_updates: whether privacy clips the clients' updates before their mean, and adds noise to it.
        seconds_an_update: audio in an update of one model, in seconds; None where that is unknown.
        train_clips: clips of the training split; None where that is unknown.
        heldout_clips: clips of the validation split; None where that is unknown.
        classes: classes of keywords, or tokens of CTC; None where that is unknown.
        unknown_characters: characters of transcripts without a token, by split.
        notes: what the reader changed or assumed, each as a sentence.
    """

    writer: str
    kind: Kind
    points: Sequence[Mapping[str, float]]
    spelling: Spelling
    unit: str = "updates"
    planned: float | None = None
    finished: bool = True
    size: str | None = None
    chance_loss: float | None = None
    chance_excess: float = 0.0
    first_loss: float | None = None
    first_accuracy: float | None = None
    groups: int = 0
    entries: int = 0
    peak_rate: float | None = None
    optimizer: str = "adamw"
    federated: bool = False
    clients: int | None = None
    clipped_updates: bool = False
    seconds_an_update: float | None = None
    train_clips: int | None = None
    heldout_clips: int | None = None
    classes: int | None = None
    unknown_characters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> float:
        """Steps that the run has done."""
        return self.points[-1]["step"] if self.points else 0

    @property
    def pretrains(self) -> bool:
        return self.kind in ("wav2vec2", "best-rq")

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Collect (steps, values) of the points with a finite value."""
        pairs = [(p["step"], p[name]) for p in self.points if math.isfinite(p.get(name, math.nan))]
        return [step for step, _ in pairs], [value for _, value in pairs]

    def values(self, name: str) -> list[float]:
        """Collect the finite values of a name, in the order of steps."""
        return self.series(name)[1]

    def last(self, *names: str) -> float | None:
        """Find the last finite value of the first name that has one."""
        return next((held[-1] for name in names if (held := self.values(name))), None)

    def first(self, *names: str) -> float | None:
        """Find the first finite value of the first name that has one."""
        return next((held[0] for name in names if (held := self.values(name))), None)

    def not_finite(self, name: str) -> list[float]:
        """List the steps at which a value was logged that is not finite."""
        return [p["step"] for p in self.points if name in p and not math.isfinite(p[name])]


def recent(values: Sequence[float], share: float = 0.25) -> list[float]:
    """Take the last quarter, or another share, of values: at least one where there is one."""
    return list(values[-max(1, round(share * len(values))) :])


def mean(values: Sequence[float]) -> float:
    """Compute a mean; NaN without values."""
    return sum(values) / len(values) if values else math.nan
