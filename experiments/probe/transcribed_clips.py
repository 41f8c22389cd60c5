"""Clips with transcripts, as train, dev and test, for probes that write characters."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from experiments.data import corpora
from experiments.data.splits import SPLITS
from experiments.probe.split_clips import Selection, SplitClips, own_splits
from experiments.report.units import by_reason
from w2v_jax.data.common_voice import Utterance, column, lengths
from w2v_jax.data.synthetic import SyntheticConfig
from w2v_jax.errors import CorpusError
from w2v_jax.text.rules import TextRules, normalise
from w2v_jax.text.tokenizers import CharacterTokenizer, train_characters

TOO_MANY_CHARACTERS = "with more characters than frames"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribedClips(SplitClips):
    """Clips of train, dev and test with their transcripts.

    Attributes:
        texts: str [clip], normalised.
        tokenizer: has a token for each character of train.
    """

    texts: np.ndarray
    tokenizer: CharacterTokenizer


def load(data: str, *, min_samples: int, num_frames: Callable[[np.ndarray], np.ndarray]) -> TranscribedClips:
    """Read a corpus with transcripts in its column `sentence`, normalised as fine-tuning does.

    Args:
        data: a Common Voice folder or a prepared one.
        min_samples: shorter clips are left out, as are those over 30 s.
        num_frames: counts the frames that every arm has of clips, from their lengths in samples, int [clip].

    Raises:
        CorpusError: no such corpus, or clips that no probe can be trained and tested with.
    """
    rules = TextRules(language=corpora.locale_of(data))
    with corpora.opened(data, SyntheticConfig()) as source:
        clips, places, notes = own_splits(source)
        return transcribed(clips, places, rules, min_samples, num_frames, notes, where=str(source.folder))


def transcribed(
    clips: Sequence[Utterance],
    places: np.ndarray,
    rules: TextRules,
    min_samples: int,
    num_frames: Callable[[np.ndarray], np.ndarray],
    notes: Sequence[str] = (),
    where: str = "the corpus",
) -> TranscribedClips:
    """Leave out the clips that no probe can write, and say so.

    A transcript must fit into the frames of every arm, with a blank between equal neighbours. Otherwise its
    clip is left out of all arms, so that all are judged by the same clips.

    Args:
        clips: of train, dev and test.
        places: str [clip], the splits.
        rules: of the transcripts.
        min_samples, num_frames: as in `load`.
        notes: lines that come first.
        where: the corpus, for messages.

    Raises:
        CorpusError: there are no transcripts, or a split without clips is left.
    """
    sentences = np.array([sentence.strip() for sentence in column(clips, "sentence")])
    if not any(sentences):
        raise CorpusError(f"{where} has no sentence: --task characters needs transcripts in that column")
    texts = np.array([normalise(sentence, rules) for sentence in sentences.tolist()])
    selection = Selection(clips, min_samples)
    selection.drop(sentences == "", "without a sentence")
    selection.drop(texts == "", "without a letter or digit")
    needed = np.array([_needed_frames(text) for text in texts.tolist()])
    tight = selection.drop(needed > num_frames(lengths(clips)), TOO_MANY_CHARACTERS)
    for split in SPLITS:
        if not (selection.kept & (places == split)).any():
            reasons = by_reason(selection.left_out, none="it has none")
            raise CorpusError(f"{where}: no clip of {split} can be used ({reasons})")
    told = [
        *notes,
        *(
            [f"{tight} clips have more characters than an arm has frames: they are left out for all arms"]
            if tight
            else []
        ),
    ]
    tokenizer = train_characters(texts[selection.kept & (places == "train")].tolist())
    for split in SPLITS[1:]:
        own = texts[selection.kept & (places == split)].tolist()
        unseen = Counter(char for text in own for char in text if char in tokenizer.unknown(text))
        if unseen:
            named = ", ".join(f"{char!r} ({count})" for char, count in sorted(unseen.items()))
            told.append(f"characters of {split} that train lacks count as errors of every arm: {named}")
    chosen = np.flatnonzero(selection.kept)
    found = TranscribedClips(
        clips=clips, places=places, notes=tuple(told), texts=texts, tokenizer=tokenizer,
        left_out=dict(selection.left_out),
    )  # fmt: skip
    return found.taken(chosen, texts=texts[chosen])


def _needed_frames(text: str) -> int:
    """Count the frames that CTC needs: one a character, and one for the blank between equal neighbours."""
    return len(text) + sum(one == other for one, other in itertools.pairwise(text))
