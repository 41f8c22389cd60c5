"""Train, dev and test of a corpus: the release's own, or made here; one rule for every command."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence

import numpy as np

from experiments.data import corpora, partitions
from experiments.data.corpora import Source
from w2v_jax.data.batches.crops import generator
from w2v_jax.data.common_voice import Corpus, Utterance, column, take, without_short_clips
from w2v_jax.data.release.assignment import UNION
from w2v_jax.errors import CorpusError
from w2v_jax.text.rules import TextRules, normalise

SPLITS = ("train", "dev", "test")
MADE_SHARE = 0.1  # of speakers (or sentences) for a dev or test split that the release lacks
FEWEST_SPEAKERS = 10  # below this, splits made here are disjoint in sentences, not in speakers
# Keywords and probes are scored on other speakers whatever their number: one each for train, dev and test.
FEWEST_SPEAKERS_APART = 3
SPLIT_IDENTITY = (0x57E9, 0)  # fixed, so that runs with different seeds are scored on the same clips
COARSEST_RULES = TextRules(accents="fold", apostrophes="fold")

Read = Callable[[str], Corpus]


@dataclasses.dataclass(frozen=True)
class Split:
    """Clips of train, dev or test, before any rule about their length or transcript.

    Attributes:
        clips: the split's clips.
        corpus: what they were taken from.
        made: whether the release lacks the split.
    """

    clips: Sequence[Utterance]
    corpus: Corpus
    made: bool


@dataclasses.dataclass(frozen=True)
class Pool:
    """The clips that missing splits are made from, and train with them.

    Attributes:
        corpus: the split that the clips were taken from.
        clips: those that are in none of the release's own dev and test.
        places: str [clip], "train", "dev" or "test".
        by_sentence: whether made splits share speakers, and no sentence.
    """

    corpus: Corpus
    clips: Sequence[Utterance]
    places: np.ndarray
    by_sentence: bool

    def take(self, split: str) -> Sequence[Utterance]:
        """Give the clips of a split."""
        return take(self.clips, np.flatnonzero(self.places == split).tolist())


def divide(own: Collection[str], read: Read, *, fewest_speakers: int = FEWEST_SPEAKERS) -> dict[str, Split]:
    """Return the clips of train, dev and test.

    A split that the release lacks is made from `train`. Without a `train` it is made from `validated`, minus
    the speakers of the splits that exist. Made splits share no speaker if there are enough speakers;
    otherwise they share no sentence.

    Args:
        own: the splits among train, dev and test that the release has.
        read: loads a split, or "validated", with clips of any length.
        fewest_speakers: speakers from which on made splits share no speaker.

    Raises:
        CorpusError: as `read`, or there are too few sentences to set any aside.
    """
    read = functools.cache(read)
    pool = _pool(own, read, fewest_speakers)
    return {
        split: Split(pool.take(split), pool.corpus, split not in own)
        if split == "train" or split not in own
        else Split(read(split).clips, read(split), made=False)
        for split in SPLITS
    }


def _pool(own: Collection[str], read: Read, fewest_speakers: int = FEWEST_SPEAKERS) -> Pool:
    base = "train" if "train" in own else UNION
    corpus = read(base)
    evaluated = [split for split in ("dev", "test") if split in own]
    clips = corpus.clips if base == "train" else _without(corpus.clips, [read(s).clips for s in evaluated])
    missing = [split for split in ("dev", "test") if split not in own]
    places, by_sentence = _places(clips, missing, base, fewest_speakers)
    return Pool(corpus, clips, places, by_sentence)


def _without(clips: Sequence[Utterance], others: Sequence[Sequence[Utterance]]) -> Sequence[Utterance]:
    """Take clips whose speakers are in none of `others`; if none is left, clips whose sentences are not."""
    speakers = {speaker for other in others for speaker in column(other, "client_id")}
    kept = [i for i, speaker in enumerate(column(clips, "client_id")) if speaker not in speakers]
    if not kept:
        taken = {normalise(text, COARSEST_RULES) for other in others for text in column(other, "sentence")}
        texts = [normalise(text, COARSEST_RULES) for text in column(clips, "sentence")]
        kept = [i for i, text in enumerate(texts) if text not in taken]
    return take(clips, kept)


def _places(
    clips: Sequence[Utterance], missing: Sequence[str], base: str, fewest_speakers: int
) -> tuple[np.ndarray, bool]:
    """Choose the split of every clip of the pool; tell whether clips of a sentence stay together."""
    if not missing:
        return np.full(len(clips), "train"), False
    speakers = column(clips, "client_id")
    groups, by_sentence = list(speakers), len(set(speakers)) < fewest_speakers
    if by_sentence:
        # Sentences that any rules for text take for the same form a group; clips without one are in no group.
        groups = [normalise(sentence, COARSEST_RULES) for sentence in column(clips, "sentence")]
    names = sorted(set(groups) - {""})
    order = generator(*SPLIT_IDENTITY).permutation(len(names))
    size = max(1, round(MADE_SHARE * len(names)))
    if size * len(missing) >= len(names):
        raise CorpusError(
            f"{base}.tsv has {len(names)} different sentences (column `sentence`): too few to set "
            f"{' and '.join(missing)} aside; give {' and '.join(f'{split}.tsv' for split in missing)}, or "
            "more transcribed recordings"
        )
    split_of = {}
    for position, index in enumerate(order):
        place = position // size
        split_of[names[index]] = missing[place] if place < len(missing) else "train"
    return np.array([split_of.get(group, "train") for group in groups]), by_sentence


def load_for_pretraining(
    data: str | None,
    split: str,
    *,
    exclude_speakers_of: Sequence[str],
    min_samples: int,
    seed: int,
    clients: int,
) -> tuple[Corpus, dict[str, set[str] | None]]:
    """Load a split without the speakers of others, which are those that fine-tuning would evaluate on.

    Args:
        data: as `corpora.load`.
        split: the split to load.
        exclude_speakers_of: of "dev" and "test" those whose speakers are left out.
        min_samples: shortest usable clip, in samples at 16 kHz.
        seed: of the synthetic corpus.
        clients: speakers that the synthetic corpus needs at least.

    Returns:
        The corpus, and the speakers of dev and test; None where they are not known.

    Raises:
        CorpusError: no such corpus or split, nothing is left, or the speakers of an excluded split cannot be
            known.
    """
    with corpora.opened(data, corpora.synthetic_for(seed, clients), split) as source:
        corpus = source.load(split)
        others: dict[str, set[str] | None] = {}
        for other in ("dev", "test"):
            if other == split:
                continue
            try:
                others[other] = _speakers(source, corpus, other, read_more=other in exclude_speakers_of)
            except CorpusError as error:
                if other in exclude_speakers_of:
                    raise CorpusError(f"--exclude-speakers-of {other}: {error}") from error
                others[other] = None
    excluded = set[str]().union(*(others.get(other) or () for other in exclude_speakers_of))
    return without_short_clips(partitions.without_speakers(corpus, excluded), min_samples), others


def _speakers(source: Source, corpus: Corpus, split: str, *, read_more: bool) -> set[str] | None:
    """Find the speakers of dev or test of a recognizer; None where more must be decoded for it.

    Raises:
        CorpusError: the split can't be made, or `read_more` is set and it is made by sentence.
    """
    if split in source.splits:
        return set(source.listed(split, "client_id"))
    base = "train" if "train" in source.splits else UNION
    if corpus.split not in (UNION, base) and not read_more:
        return None

    def read(wanted: str) -> Corpus:
        """Read a split, from the clips that are decoded already where these hold it."""
        if wanted == corpus.split:
            return corpus
        if corpus.split != UNION:
            return source.load(wanted)
        names = set(source.listed(wanted, "path"))
        kept = [index for index, path in enumerate(column(corpus.clips, "path")) if path in names]
        return dataclasses.replace(corpus, split=wanted, clips=take(corpus.clips, kept))

    pool = _pool(source.splits, read)
    if pool.by_sentence and read_more:
        raise CorpusError(
            f"the release has no {split}.tsv, and fine-tuning makes {split} by sentence where there are "
            f"fewer than {FEWEST_SPEAKERS} speakers: every speaker may be in it"
        )
    return set(column(pool.take(split), "client_id"))
