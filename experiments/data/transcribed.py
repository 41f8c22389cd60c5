"""Transcribed speech as train, dev and test: the release's own splits, or disjoint ones made here."""

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data import corpora
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.batches.crops import generator
from w2v_jax.data.common_voice import Corpus, Utterance, column, lengths, load_corpus, locate, take
from w2v_jax.data.prepared.corpus import PreparedCorpus, is_prepared, load_prepared
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.data.tables import lists_nothing
from w2v_jax.errors import CorpusError
from w2v_jax.text.rules import TextRules, normalise
from w2v_jax.text.tokenizers import Tokenizer

SPLITS = ("train", "dev", "test")
MADE_SHARE = 0.1  # of speakers (or sentences) for a dev or test split that the release lacks
FEWEST_SPEAKERS = 10  # below this, splits made here are disjoint in sentences, not in speakers
# Fixed, so that runs with different seeds are scored on the same clips.
SPLIT_IDENTITY = (0x57E9, 0)
BUDGET_IDENTITY = (0x57E9, 1)
COARSEST_RULES = TextRules(accents="fold", apostrophes="fold")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcribed:
    """Clips with transcripts.

    Attributes:
        clips: of a split.
        texts: their transcripts under the run's rules for text.
        dropped: clips left out, by reason.
        source: where the split comes from.
    """

    clips: Sequence[Utterance]
    texts: list[str]
    dropped: dict[str, int]
    source: str

    @property
    def seconds(self) -> float:
        return float(lengths(self.clips).sum()) / SAMPLE_RATE_HZ

    def summary(self) -> dict[str, Any]:
        """What a run's folder says of it."""
        return {
            "source": self.source,
            "clips": len(self.clips),
            "seconds": self.seconds,
            "speakers": len(set(column(self.clips, "client_id"))),
            "sentences": len(set(self.texts)),
            "words": sum(len(text.split()) for text in self.texts),
            "dropped": self.dropped,
        }


def load(
    data: str | None, rules: TextRules, *, min_samples: int, max_samples: int, seed: int
) -> dict[str, Transcribed]:
    """Train, dev and test of a corpus.

    Splits that the release lacks are made from `train`, or where that lacks too from `validated` without
    the speakers of those that it has: disjoint in speakers where there are at least ten, else in sentences.

    Args:
        data: a Common Voice folder or a prepared one; None makes a synthetic corpus of this seed.
        rules: for transcripts.
        min_samples: shortest clip used.
        max_samples: longest clip used in train; dev and test keep every clip.
        seed: of the synthetic corpus alone.

    Raises:
        CorpusError: no such corpus, or one without transcripts.
    """
    if data is None:
        with tempfile.TemporaryDirectory() as folder:
            locale = write_corpus(Path(folder), SyntheticConfig(seed=seed))
            return _load(locale, rules, min_samples, max_samples)
    folder = corpora.find(data)
    return _load(folder, rules, min_samples, max_samples)


def _load(folder: Path, rules: TextRules, min_samples: int, max_samples: int) -> dict[str, Transcribed]:
    present, read = _reader(folder, min_samples)
    if not present & {"train", "validated"}:
        raise CorpusError(f"{folder} has no train.tsv and no validated.tsv: nothing to fine-tune on")
    base = "train" if "train" in present else "validated"
    corpora_of = {split: read(split) for split in (base, *(s for s in ("dev", "test") if s in present))}
    held: dict[str, Sequence[Utterance]] = {split: corpus.clips for split, corpus in corpora_of.items()}
    if base == "validated":
        held[base] = _without(held[base], [held[split] for split in held if split != base])
    held = _make_missing(held, base)
    found = {}
    for split in SPLITS:
        own = split if split in corpora_of else base
        source = f"{own}.tsv" if own == split else f"made from {base}.tsv"
        unread = corpora_of[own].skipped_by_reason() if own == split or split == "train" else {}
        found[split] = _usable(
            held[split], rules, max_samples if split == "train" else None, source, Counter(unread)
        )
        if not found[split].clips:
            reasons = ", ".join(f"{count} {reason}" for reason, count in found[split].dropped.items())
            raise CorpusError(
                f"{folder}: no clip of {split} has a transcript and a usable length ({reasons}): "
                "fine-tuning needs the `sentence` column"
            )
    return found


def _reader(folder: Path, min_samples: int) -> tuple[set[str], Callable[[str], Corpus]]:
    """The splits that list something, and how to read one."""
    names = (*SPLITS, "validated")
    if is_prepared(folder):
        held = {"validated", *PreparedCorpus(folder).splits}
        return held & set(names), lambda split: load_prepared(folder, split, min_samples=min_samples)
    for split in ("train", "validated"):
        try:
            locale = locate(folder, split)
            break
        except CorpusError:
            continue
    else:
        locate(folder, "validated")
        raise AssertionError
    tables = {name: locale / f"{name}.tsv" for name in names}
    present = {n for n, path in tables.items() if path.is_file() and not lists_nothing(path.read_bytes())}
    return present, lambda split: load_corpus(locale, split, min_samples=min_samples)


def _without(clips: Sequence[Utterance], others: Sequence[Sequence[Utterance]]) -> Sequence[Utterance]:
    """Clips whose speakers are in none of `others`; where that leaves nothing, whose sentences are not."""
    speakers = {speaker for other in others for speaker in column(other, "client_id")}
    kept = [i for i, speaker in enumerate(column(clips, "client_id")) if speaker not in speakers]
    if not kept:
        taken = {normalise(text, COARSEST_RULES) for other in others for text in column(other, "sentence")}
        texts = [normalise(text, COARSEST_RULES) for text in column(clips, "sentence")]
        kept = [i for i, text in enumerate(texts) if text not in taken]
    return take(clips, kept)


def _make_missing(held: dict[str, Sequence[Utterance]], base: str) -> dict[str, Sequence[Utterance]]:
    """Cut the splits that are missing out of `base`."""
    missing = [split for split in ("dev", "test") if split not in held]
    clips = held[base]
    if not missing:
        return {**held, "train": clips}
    speakers = column(clips, "client_id")
    groups = list(speakers)
    if len(set(speakers)) < FEWEST_SPEAKERS:
        # What any rules for text would take for the same; clips without a transcript are in no group.
        groups = [normalise(sentence, COARSEST_RULES) for sentence in column(clips, "sentence")]
    names = sorted(set(groups) - {""})
    order = generator(*SPLIT_IDENTITY).permutation(len(names))
    size = max(1, round(MADE_SHARE * len(names)))
    if size * len(missing) >= len(names):
        raise CorpusError(
            f"{base}.tsv has {len(names)} different sentences (column `sentence`): too few to set "
            f"{' and '.join(missing)} aside"
        )
    split_of = {}
    for position, index in enumerate(order):
        place = position // size
        split_of[names[index]] = missing[place] if place < len(missing) else "train"
    places = np.array([split_of.get(group, "train") for group in groups])
    made = {s: take(clips, np.flatnonzero(places == s).tolist()) for s in ("train", *missing)}
    return {**held, **made}


def _usable(
    clips: Sequence[Utterance], rules: TextRules, max_samples: int | None, source: str, dropped: Counter[str]
) -> Transcribed:
    texts = [normalise(sentence, rules) for sentence in column(clips, "sentence")]
    num_samples = lengths(clips)
    kept = []
    for index, text in enumerate(texts):
        if not text:
            dropped["without transcript"] += 1
        elif max_samples is not None and num_samples[index] > max_samples:
            dropped["too long"] += 1
        else:
            kept.append(index)
    return Transcribed(
        clips=take(clips, kept), texts=[texts[i] for i in kept], dropped=dict(dropped), source=source
    )


def within_minutes(train: Transcribed, minutes: float) -> Transcribed:
    """At most so many minutes of a training split: the same clips whatever the run's seed.

    Smaller budgets are contained in larger ones.
    """
    order = generator(*BUDGET_IDENTITY).permutation(len(train.clips))
    seconds = np.cumsum(lengths(train.clips)[order]) / SAMPLE_RATE_HZ
    kept = sorted(int(index) for index in order[: max(1, int((seconds <= 60.0 * minutes).sum()))])
    return dataclasses.replace(
        train, clips=take(train.clips, kept), texts=[train.texts[index] for index in kept]
    )


def shuffled(train: Transcribed, seed: int) -> Transcribed:
    """Every clip with another clip's transcript: what a recognizer learns without listening."""
    order = generator(*SPLIT_IDENTITY, seed).permutation(len(train.texts))
    texts = list(train.texts)
    for here, there in zip(order, np.roll(order, 1), strict=True):
        texts[here] = train.texts[there]
    return dataclasses.replace(train, texts=texts)


def labels_of(transcribed: Transcribed, tokenizer: Tokenizer) -> tuple[list[list[int]], dict[str, int]]:
    """Token ids of all transcripts, and how often each character without a token was left out."""
    unknown: Counter[str] = Counter()
    labels = []
    for text in transcribed.texts:
        if missing := tokenizer.unknown(text):
            unknown.update(char for char in text if char in missing)
            text = " ".join("".join(char for char in text if char not in missing).split())
        labels.append(tokenizer.encode(text))
    return labels, dict(unknown)
