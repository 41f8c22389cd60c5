"""`w2v-jax data synth`: write a synthetic corpus in the Common Voice layout."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments.options import arguments
from experiments.options.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthArguments:
    """Write a synthetic corpus: generated speakers uttering pseudo-words, with transcripts.

    example: w2v-jax data synth --out corpora/synthetic --speakers 40
    """

    out: Path
    """Folder to write the locale `xx` into."""
    speakers: int = 24
    """Number of generated voices; a tenth goes to dev and a tenth to test."""
    clips_per_speaker: int = 8
    """Number of sentences of each voice."""
    words: int = 300
    """Number of different words in the lexicon."""
    words_per_sentence: tuple[int, int] = (3, 6)
    """Smallest and largest number of words in a sentence; 1 1 makes single words, for probe and finetune
    --task keywords."""
    conditions: Literal["clean", "varied"] = "clean"
    """Sound of the clips. varied gives every clip a microphone and a background noise of its own."""
    seed: int = 0
    """Seed of everything random; the same seed gives the same bytes."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(SynthArguments, argv, "w2v-jax data synth")
    arguments.check_at_least(3, options, "speakers")  # one each for train, dev and test
    arguments.check_at_least(1, options, "clips_per_speaker", "words")
    arguments.check_at_least(0, options, "seed")
    from w2v_jax.data.common_voice import load_corpus
    from w2v_jax.data.synthetic import MAX_WORDS, SyntheticConfig, write_corpus

    fewest, most = options.words_per_sentence
    if not 1 <= fewest <= most:
        raise UsageError(f"--words-per-sentence takes two counts, fewest then most, got {fewest} {most}")
    if options.words > MAX_WORDS:
        raise UsageError(f"--words must be at most {MAX_WORDS}, got {options.words}")

    config = SyntheticConfig(
        speakers=options.speakers,
        clips_per_speaker=options.clips_per_speaker,
        words=options.words,
        words_per_sentence=options.words_per_sentence,
        conditions=options.conditions,
        seed=options.seed,
    )
    locale = write_corpus(options.out, config)
    corpus = load_corpus(locale)
    print(f"{locale}: {len(corpus.clips)} clips, {corpus.seconds:.0f} s, {len(corpus.speakers())} speakers")
