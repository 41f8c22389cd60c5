"""Clips with a class each, as train, dev and test."""

import dataclasses
from collections import Counter

import numpy as np

from experiments.data import transcribed
from experiments.data.transcribed import Transcribed
from w2v_jax.data.common_voice import column
from w2v_jax.errors import CorpusError
from w2v_jax.recognition.label_budgets import balanced_budget

FEWEST_CLIPS, FEWEST_CLASSES = 2, 2  # clips of a class in train; classes in train
EXAMPLES_TOLD = 3
Clips = dict[str, Transcribed]


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeywordSplits:
    """Splits and their classes.

    Attributes:
        splits: clips by split; their texts are their classes.
        classes: those of the training clips, sorted.
        unseen: clips of dev and test by a class that no training clip has.
        shared_speakers: speakers of test that are in train too.
    """

    splits: Clips
    classes: list[str]
    unseen: dict[str, dict[str, int]]
    shared_speakers: int

    def labels(self, split: str) -> list[list[int]]:
        """Give the index of each clip's class; nothing for an unseen class."""
        index = {name: number for number, name in enumerate(self.classes)}
        return [[index[name]] if name in index else [] for name in self.splits[split].texts]


def load(
    data: str | None,
    label_column: str,
    *,
    min_samples: int,
    max_samples: int,
    seed: int,
    minutes: float | None = None,
    share: float | None = None,
) -> KeywordSplits:
    """Load train, dev and test with the classes of a column.

    Args:
        data: a Common Voice folder or a prepared one; None makes a synthetic corpus of single words.
        label_column: the column of the classes.
        min_samples: shortest clip used.
        max_samples: longest clip used in train.
        seed: of the synthetic corpus and of `share`.
        minutes: at most so much of train is used; None uses all.
        share: of the training clips of each class that is used, between 0 and 1; None uses all.

    Raises:
        CorpusError: the classes cannot be learnt or scored; the message says why.
    """
    splits = transcribed.load(
        data, None, min_samples=min_samples, max_samples=max_samples, seed=seed, label_column=label_column
    )
    speakers = {name: set(column(held.clips, "client_id")) for name, held in splits.items()}
    if len(set().union(*speakers.values())) < 2:
        raise CorpusError(
            "the corpus has one speaker: keywords are scored on speakers that training has not heard, so "
            "give a corpus of at least two"
        )
    train = splits["train"]
    _check_counts(train, label_column)
    if minutes is not None:
        train = transcribed.within_minutes(train, minutes)
    if share is not None:
        train = labelled_share(train, share, seed)
    splits["train"] = train
    classes = sorted(set(train.texts))
    if len(classes) < FEWEST_CLASSES:
        raise CorpusError(f"--train-minutes {minutes:g} leaves clips of one class ({classes[0]}): give more")
    unseen = {name: _unseen(splits[name], classes) for name in ("dev", "test")}
    for name, held in unseen.items():
        if sum(held.values()) == len(splits[name].clips):
            raise CorpusError(
                f"no clip of {name} has a class that a training clip has (column `{label_column}`; "
                f"{name}: {_examples(list(held))}; train: {_examples(classes)}): give {name}.tsv clips of "
                "the same classes by other speakers"
            )
    return KeywordSplits(
        splits=splits,
        classes=classes,
        unseen=unseen,
        shared_speakers=len(speakers["test"] & speakers["train"]),
    )


def labelled_share(train: Transcribed, share: float, seed: int) -> Transcribed:
    """Keep a share of the clips of every class, at least one; smaller shares are contained in larger ones."""
    labels = np.unique(train.texts, return_inverse=True)[1]
    kept = balanced_budget(labels, np.array(column(train.clips, "path")), share, seed)
    return transcribed.selected(train, kept.tolist())


def _check_counts(train: Transcribed, label_column: str) -> None:
    """Check that the classes of the training clips recur.

    Raises:
        CorpusError: a class has one clip, or there is one class.
    """
    count = Counter(train.texts)
    if alone := sorted(name for name, clips in count.items() if clips < FEWEST_CLIPS):
        raise CorpusError(
            f"column `{label_column}` has {len(alone)} of {len(count)} classes with one training clip (such "
            f"as {_examples(alone)}): every class needs {FEWEST_CLIPS}; leave such clips out of the table, "
            "or name a column whose values recur (--column)"
        )
    if len(count) < FEWEST_CLASSES:
        raise CorpusError(
            f"column `{label_column}` has one class in the training clips ({', '.join(count)}): name a "
            f"column with at least {FEWEST_CLASSES} (--column)"
        )


def _unseen(held: Transcribed, classes: list[str]) -> dict[str, int]:
    seen = set(classes)
    return dict(sorted(Counter(name for name in held.texts if name not in seen).items()))


def _examples(names: list[str]) -> str:
    return ", ".join(names[:EXAMPLES_TOLD]) + ", ..." * (len(names) > EXAMPLES_TOLD)
