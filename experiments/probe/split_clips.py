"""Clips of train, dev and test for probes, whatever is told of them."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Self

import numpy as np

from experiments.data import corpora, splits
from experiments.data.splits import SPLITS
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.common_voice import Utterance, column, lengths, take
from w2v_jax.data.release.assignment import UNION
from w2v_jax.errors import CorpusError

LONGEST_SECONDS = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitClips:
    """Clips of train, dev and test.

    Attributes:
        clips: of all three splits.
        places: str [clip], "train", "dev" or "test".
        notes: lines about what was left out, made or assumed.
        left_out: clips that were left out, by reason.
    """

    clips: Sequence[Utterance]
    places: np.ndarray
    notes: tuple[str, ...] = ()
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)

    def of(self, split: str) -> np.ndarray:
        """Indices of a split's clips."""
        return np.flatnonzero(self.places == split)

    def speakers(self) -> np.ndarray:
        """The speaker of every clip, str [clip]."""
        return np.array(column(self.clips, "client_id"))

    def paths(self) -> np.ndarray:
        """The path of every clip, str [clip]."""
        return np.array(column(self.clips, "path"))

    def taken(self, indices: np.ndarray, **changes: object) -> Self:
        """Take some of the clips, and change other fields."""
        chosen = [int(index) for index in indices]
        return dataclasses.replace(
            self, clips=take(self.clips, chosen), places=self.places[chosen], **changes
        )


class Selection:
    """The clips that are still in use, and how many were left out for which reason.

    Attributes:
        kept: bool [clip].
        left_out: clips by reason.
    """

    def __init__(self, clips: Sequence[Utterance], min_samples: int):
        """Leave out clips of fewer than `min_samples`, and those over 30 s."""
        samples = lengths(clips)
        self.kept = np.ones(len(samples), bool)
        self.left_out: Counter[str] = Counter()
        self.drop(samples < min_samples, "too short")
        self.drop(samples > LONGEST_SECONDS * SAMPLE_RATE_HZ, f"over {LONGEST_SECONDS:g} s")

    def drop(self, which: np.ndarray, reason: str) -> int:
        """Leave out some clips, and count those that were still in use."""
        count = int((which & self.kept).sum())
        if count:
            self.left_out[reason] += count
        self.kept &= ~which
        return count


def own_splits(source: corpora.Source) -> tuple[Sequence[Utterance], np.ndarray, list[str]]:
    """Read the splits of a release; those that it lacks are made of other speakers.

    Returns:
        The clips, their splits, str [clip], and lines for the user.

    Raises:
        CorpusError: a missing split cannot be made of other speakers, or all clips are of one speaker.
    """
    missing = [split for split in SPLITS[1:] if split not in source.splits]
    base = "train" if "train" in source.splits else UNION
    speakers = len(set(source.listed(base, "client_id")))
    if missing and speakers < splits.FEWEST_SPEAKERS_APART:
        raise CorpusError(
            f"{source.folder} has no {' and no '.join(f'{split}.tsv' for split in missing)}, and {speakers} "
            f"speaker{'s' * (speakers != 1)} in {base}.tsv: too few to set some aside "
            f"({splits.FEWEST_SPEAKERS_APART} are needed)"
        )
    divided = splits.divide(source.splits, source.load, fewest_speakers=splits.FEWEST_SPEAKERS_APART)
    clips = [clip for split in SPLITS for clip in divided[split].clips]
    places = np.repeat(SPLITS, [len(divided[split].clips) for split in SPLITS])
    if len(set(column(clips, "client_id"))) == 1:
        raise CorpusError(
            f"{source.folder} has one speaker: a probe is scored on speakers whom it was not trained with, "
            "so give a corpus of several"
        )
    notes = [f"no {split}.tsv: {split} was made of speakers of {base}.tsv" for split in missing]
    heard = set(column(divided["train"].clips, "client_id"))
    for split in SPLITS[1:]:
        if shared := heard & set(column(divided[split].clips, "client_id")):
            notes.append(f"{len(shared)} speakers of {split} are in train too: scores flatter every arm")
    return clips, places, notes
