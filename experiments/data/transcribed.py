"""Transcribed speech as train, dev and test: the release's own splits, or disjoint ones made here."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.data import corpora, splits
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.batches.crops import generator
from w2v_jax.data.common_voice import Utterance, column, lengths, take
from w2v_jax.data.release.assignment import UNION
from w2v_jax.data.synthetic import SyntheticConfig
from w2v_jax.data.tables import counts
from w2v_jax.errors import CorpusError
from w2v_jax.text.rules import TextRules, normalise
from w2v_jax.text.tokenizers import Tokenizer

# Fixed, so that runs with different seeds are scored on the same clips.
BUDGET_IDENTITY = (0x57E9, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcribed:
    """Clips with transcripts.

    Attributes:
        clips: of a split.
        texts: their transcripts under the run's rules for text.
        dropped: clips left out, by reason.
        changed: clips that were changed when they were decoded, or found under another name, by reason.
        source: where the split comes from.
    """

    clips: Sequence[Utterance]
    texts: list[str]
    dropped: dict[str, int]
    source: str
    changed: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return float(lengths(self.clips).sum()) / SAMPLE_RATE_HZ

    def summary(self) -> dict[str, Any]:
        """Summarise the split for the run's folder."""
        return {
            "source": self.source,
            "clips": len(self.clips),
            "seconds": self.seconds,
            "speakers": len(set(column(self.clips, "client_id"))),
            "sentences": len(set(self.texts)),
            "words": sum(len(text.split()) for text in self.texts),
            "dropped": self.dropped,
            "changed": self.changed,
        }


def load(
    data: str | None, rules: TextRules, *, min_samples: int, max_samples: int, seed: int
) -> dict[str, Transcribed]:
    """Load train, dev and test of a corpus; those that the release lacks are made (see `splits.divide`).

    Args:
        data: a Common Voice folder or a prepared one; None makes a synthetic corpus of this seed.
        rules: for transcripts.
        min_samples: shortest clip used.
        max_samples: longest clip used in train; dev and test keep every clip.
        seed: of the synthetic corpus alone.

    Raises:
        CorpusError: no such corpus, or one without transcripts.
    """
    with corpora.opened(data, SyntheticConfig(seed=seed)) as source:
        divided = splits.divide(source.splits, source.load)
        base = "train" if "train" in source.splits else UNION
        found = {}
        for split, held in divided.items():
            name = f"made from {base}.tsv" if held.made else f"{split}.tsv"
            longest = max_samples if split == "train" else None
            dropped = _unread(held, split, source.splits)
            found[split] = _usable(held, rules, (min_samples, longest), name, dropped)
            if not found[split].clips:
                reasons = ", ".join(f"{count} {reason}" for reason, count in found[split].dropped.items())
                raise CorpusError(
                    f"{source.folder}: no clip of {split} has a transcript and a usable length ({reasons}): "
                    "fine-tuning needs the `sentence` column"
                )
        return found


def _unread(held: splits.Split, split: str, own: Sequence[str]) -> Counter[str]:
    """Clips that could not be read, by reason; those of a pool count in train."""
    if held.made and split != "train":
        return Counter()
    return Counter(
        skip.reason for skip in held.corpus.skipped if skip.split == split or skip.split not in own
    )


def _usable(
    held: splits.Split,
    rules: TextRules,
    limits: tuple[int, int | None],
    source: str,
    dropped: Counter[str],
) -> Transcribed:
    """Clips with a transcript and a length, in samples, within limits."""
    clips, (shortest, longest) = held.clips, limits
    texts = [normalise(sentence, rules) for sentence in column(clips, "sentence")]
    num_samples = lengths(clips)
    kept = []
    for index, text in enumerate(texts):
        if num_samples[index] < shortest:
            dropped["too short"] += 1
        elif not text:
            dropped["without transcript"] += 1
        elif longest is not None and num_samples[index] > longest:
            dropped["too long"] += 1
        else:
            kept.append(index)
    chosen = take(clips, kept)
    paths = set(column(chosen, "path"))
    return Transcribed(
        clips=chosen,
        texts=[texts[i] for i in kept],
        dropped=dict(dropped),
        changed=counts(change for change in held.corpus.changed if change.path in paths),
        source=source,
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
    order = generator(*splits.SPLIT_IDENTITY, seed).permutation(len(train.texts))
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
