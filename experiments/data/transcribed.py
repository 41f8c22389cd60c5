"""Labelled speech as train, dev and test: the release's own splits, or disjoint ones made here."""

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
# Size of the synthetic corpus of single words.
SYNTHETIC_KEYWORDS: dict[str, Any] = {"words": 10, "words_per_sentence": (1, 1), "clips_per_speaker": 20}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcribed:
    """Clips with transcripts, or with other labels.

    Attributes:
        clips: of a split.
        texts: their transcripts under the run's rules for text, or their classes.
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
    data: str | None,
    rules: TextRules | None,
    *,
    min_samples: int,
    max_samples: int,
    seed: int,
    label_column: str = "sentence",
) -> dict[str, Transcribed]:
    """Load train, dev and test of a corpus; those that the release lacks are made (see `splits.divide`).

    Args:
        data: a Common Voice folder or a prepared one; None makes a synthetic corpus of this seed, of single
            words where there are no `rules`.
        rules: for transcripts; None takes the column's values as they are, without white space around them.
        min_samples: shortest clip used.
        max_samples: longest clip used in train; dev and test keep every clip.
        seed: of the synthetic corpus alone.
        label_column: the column of the transcripts.

    Raises:
        CorpusError: no such corpus, or one without transcripts.
    """
    synthetic = SyntheticConfig(**SYNTHETIC_KEYWORDS) if rules is None else SyntheticConfig()
    with corpora.opened(data, dataclasses.replace(synthetic, seed=seed)) as source:
        # Splits by sentence would leave each class to one split.
        fewest = splits.FEWEST_SPEAKERS_APART if rules is None else splits.FEWEST_SPEAKERS
        divided = splits.divide(source.splits, source.load, fewest_speakers=fewest)
        base = "train" if "train" in source.splits else UNION
        found = {}
        for split, held in divided.items():
            name = f"made from {base}.tsv" if held.made else f"{split}.tsv"
            longest = max_samples if split == "train" else None
            dropped = _unread(held, split, source.splits)
            texts = _texts(held.clips, rules, label_column)
            label = "label" if rules is None else "transcript"
            found[split] = _usable(held, texts, label, (min_samples, longest), name, dropped)
            if not found[split].clips:
                reasons = ", ".join(f"{count} {reason}" for reason, count in found[split].dropped.items())
                raise CorpusError(
                    f"{source.folder}: no clip of {split} has a {label} and a usable length ({reasons}): "
                    f"fine-tuning needs the `{label_column}` column"
                )
        return found


def _unread(held: splits.Split, split: str, own: Sequence[str]) -> Counter[str]:
    """Count clips that could not be read, by reason; those of a pool count in train."""
    if held.made and split != "train":
        return Counter()
    return Counter(
        skip.reason for skip in held.corpus.skipped if skip.split == split or skip.split not in own
    )


def _texts(clips: Sequence[Utterance], rules: TextRules | None, label_column: str) -> list[str]:
    values = column(clips, label_column)
    return [value.strip() if rules is None else normalise(value, rules) for value in values]


def _usable(
    held: splits.Split,
    texts: list[str],
    label: str,
    limits: tuple[int, int | None],
    source: str,
    dropped: Counter[str],
) -> Transcribed:
    """Select clips with a text (a transcript or a label) whose length in samples is within limits."""
    clips, (shortest, longest) = held.clips, limits
    num_samples = lengths(clips)
    kept = []
    for index, text in enumerate(texts):
        if num_samples[index] < shortest:
            dropped["too short"] += 1
        elif not text:
            dropped[f"without {label}"] += 1
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
    """Take at most so many minutes of a training split: the same clips whatever the run's seed.

    Smaller budgets are contained in larger ones.
    """
    order = generator(*BUDGET_IDENTITY).permutation(len(train.clips))
    seconds = np.cumsum(lengths(train.clips)[order]) / SAMPLE_RATE_HZ
    return selected(train, sorted(order[: max(1, int((seconds <= 60.0 * minutes).sum()))].tolist()))


def selected(held: Transcribed, indices: Sequence[int]) -> Transcribed:
    """Select some of the clips."""
    return dataclasses.replace(
        held, clips=take(held.clips, indices), texts=[held.texts[index] for index in indices]
    )


def shuffled(train: Transcribed, seed: int) -> Transcribed:
    """Give every clip another clip's transcript, so that only the language can be learnt."""
    order = generator(*splits.SPLIT_IDENTITY, seed).permutation(len(train.texts))
    texts = list(train.texts)
    for here, there in zip(order, np.roll(order, 1), strict=True):
        texts[here] = train.texts[there]
    return dataclasses.replace(train, texts=texts)


def labels_of(transcribed: Transcribed, tokenizer: Tokenizer) -> tuple[list[list[int]], dict[str, int]]:
    """Encode all transcripts as token ids; count how often each character without a token was left out."""
    unknown: Counter[str] = Counter()
    labels = []
    for text in transcribed.texts:
        if missing := tokenizer.unknown(text):
            unknown.update(char for char in text if char in missing)
            text = " ".join("".join(char for char in text if char not in missing).split())
        labels.append(tokenizer.encode(text))
    return labels, dict(unknown)
