"""Clips with classes, as train, dev and test."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from experiments.data import corpora
from experiments.data.splits import SPLITS
from experiments.options.spelling import nearest
from experiments.probe.options import ClassTask
from experiments.probe.split_clips import Selection, SplitClips, own_splits
from w2v_jax.data.common_voice import Utterance, column, take
from w2v_jax.data.release.assignment import UNION
from w2v_jax.data.synthetic import SyntheticConfig
from w2v_jax.data.tables import COLUMNS
from w2v_jax.errors import CorpusError

DEV_SHARE, TEST_SHARE = 0.2, 0.2  # of a speaker's clips, where the speaker is the class
NAMED = 5  # classes that a note names at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledClips(SplitClips):
    """Clips of train, dev and test with their classes.

    Attributes:
        labels: int64 [clip], indices into `classes`.
        classes: names.
    """

    labels: np.ndarray
    classes: tuple[str, ...]

    def take(self, indices: np.ndarray) -> "LabelledClips":
        """Some of the clips; the classes stay."""
        return self.taken(indices, labels=self.labels[indices])


def load(data: str, task: ClassTask, name: str, *, min_samples: int, seed: int) -> LabelledClips:
    """Read a corpus whose clips have classes.

    Args:
        data: a Common Voice folder or a prepared one.
        task: keywords takes the column `name` for the class, and the release's splits. speaker takes the
            speaker, and splits every speaker's clips at random.
        name: a column of the table.
        min_samples: shorter clips are left out, as are those over 30 s.
        seed: of the splits of the task speaker.

    Raises:
        CorpusError: no such corpus or column, or clips that no probe can be trained and tested with.
    """
    name = "client_id" if task == "speaker" else name
    if name not in COLUMNS:
        raise CorpusError(nearest(name, [held for held in COLUMNS if held != "path"], "--column"))
    with corpora.opened(data, SyntheticConfig()) as source:
        read = _all_clips if task == "speaker" else own_splits
        clips, places, notes = read(source)
        values = np.array([" ".join(value.split()) for value in column(clips, name)])
        if not any(values):
            raise CorpusError(
                f"{source.folder} has no {name}: a probe needs a column of its tables that tells the class "
                "of every clip (--column)"
            )
        found = labelled(clips, values, places, min_samples, notes, where=str(source.folder))
        if task == "speaker":
            found = by_clip(found, seed)
            if not len(found.of("dev")):
                raise CorpusError(f"{source.folder}: --task speaker needs a speaker with three clips or more")
        check_splits(found, str(source.folder))
    return found


def _all_clips(source: corpora.Source) -> tuple[Sequence[Utterance], np.ndarray, list[str]]:
    """All clips of a corpus as train: `by_clip` divides them."""
    clips = source.load(UNION).clips
    return clips, np.full(len(clips), "train"), []


def labelled(
    clips: Sequence[Utterance],
    values: np.ndarray,
    places: np.ndarray,
    min_samples: int,
    notes: Sequence[str] = (),
    where: str = "the corpus",
) -> LabelledClips:
    """Leave out the clips that no probe can use, and number the classes of the others.

    Args:
        clips: of train, dev and test.
        values: str [clip], the classes; empty where a clip has none.
        places: str [clip], the splits.
        min_samples: shorter clips are left out.
        notes: lines that come first.
        where: the corpus, for messages.

    Raises:
        CorpusError: fewer than two classes, or a split without clips, are left.
    """
    notes, selection = list(notes), Selection(clips, min_samples)
    selection.drop(values == "", "without a class")
    counts = Counter(values[selection.kept].tolist())
    single = sorted(value for value, count in counts.items() if count == 1)
    selection.drop(np.isin(values, single), "the only clip of its class")
    known = sorted(set(values[selection.kept & (places == "train")].tolist()))
    unseen = selection.kept & (places != "train") & ~np.isin(values, known)
    if single:
        notes.append(f"{len(single)} classes have a single clip, which is left out: {_some(single)}")
    for split in SPLITS[1:]:
        if (lost := unseen & (places == split)).any():
            which = _some(sorted(set(values[lost].tolist())))
            notes.append(
                f"{lost.sum()} clips of {split} are of classes that are not in train, and left out: {which}"
            )
    selection.drop(unseen, "of a class that is not in train")
    if len(known) < 2:
        what = f"1 class ({known[0]})" if known else "no class"
        raise CorpusError(f"{where} has {what} with two clips or more to train with: a probe needs 2 classes")
    number = {value: index for index, value in enumerate(known)}
    chosen = np.flatnonzero(selection.kept)
    return LabelledClips(
        clips=take(clips, chosen.tolist()),
        labels=np.array([number[value] for value in values[chosen].tolist()]),
        places=places[chosen],
        classes=tuple(known),
        notes=tuple(notes),
        left_out=dict(selection.left_out),
    )


def check_splits(found: LabelledClips, where: str) -> None:
    """Check that every split has clips.

    Raises:
        CorpusError: one has none.
    """
    for split in SPLITS:
        if not len(found.of(split)):
            raise CorpusError(
                f"{where}: no clip of {split} is of a class that a probe is trained with "
                f"(e.g. {_some(found.classes)}); "
                + (", ".join(f"{count} {reason}" for reason, count in found.left_out.items()) or "none given")
            )


def by_clip(found: LabelledClips, seed: int) -> LabelledClips:
    """Divide every class's clips into train, dev and test, at random by the seed; train has one at least."""
    places = np.full(len(found.labels), "train", dtype="<U5")
    for number in range(len(found.classes)):
        own = np.flatnonzero(found.labels == number)
        order = np.random.default_rng((seed, number)).permutation(own)
        test = max(1, round(TEST_SHARE * len(own)))
        dev = min(max(1, round(DEV_SHARE * len(own))), len(own) - test - 1)
        places[order[:test]] = "test"
        places[order[test : test + dev]] = "dev"
    return dataclasses.replace(found, places=places)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + ", ..." * (len(names) > NAMED)
