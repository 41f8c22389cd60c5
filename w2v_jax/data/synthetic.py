"""A synthetic corpus in the Common Voice layout: formant speech by generated speakers.

Letters have formants, voicing and durations of their own; speakers differ in vocal-tract scale,
pitch, rate and noise floor. Everything follows from the seed, so that the demo and the tests walk
the same path as recorded speech. It is not speech: a model trained on it has learnt nothing about speech.
"""

import csv
import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.signal
import soundfile

from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.errors import CorpusError

VOWELS = "aeiou"
CONSONANTS = "bdfgklmnprstvz"
# First three formants in Hz of an average speaker.
VOWEL_FORMANTS_HZ = {
    "a": (750.0, 1250.0, 2500.0),
    "e": (500.0, 1850.0, 2550.0),
    "i": (300.0, 2250.0, 3000.0),
    "o": (480.0, 900.0, 2450.0),
    "u": (320.0, 750.0, 2300.0),
}
MAX_WORDS = 10_000  # of some 348,000 words of two or three syllables
UNVOICED = "fkpst"
COLUMNS: tuple[str, ...] = (
    "client_id",
    "path",
    "sentence",
    "up_votes",
    "down_votes",
    "age",
    "gender",
    "accent",
    "locale",
    "segment",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Size of a synthetic corpus.

    Attributes:
        conditions: clean, or varied: every clip has a microphone and a background noise of its own, so that
            spectra alone tell words apart less well.
    """

    speakers: int = 24
    clips_per_speaker: int = 8
    words: int = 300
    words_per_sentence: tuple[int, int] = (3, 6)
    conditions: Literal["clean", "varied"] = "clean"
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Speaker:
    """A generated voice."""

    name: str
    tract_scale: float
    pitch_hz: float
    rate: float
    noise: float


def letter_formants_hz(letter: str) -> tuple[float, ...]:
    """Formants of a letter; consonants get fixed ones spread over the band."""
    if letter in VOWEL_FORMANTS_HZ:
        return VOWEL_FORMANTS_HZ[letter]
    place = CONSONANTS.index(letter)
    return (250.0 + 45.0 * place, 900.0 + 170.0 * ((5 * place) % 14), 2400.0 + 260.0 * ((3 * place) % 14))


def make_lexicon(words: int, rng: np.random.Generator) -> list[str]:
    """Different pseudo-words of two or three open syllables."""
    lexicon: dict[str, None] = {}
    while len(lexicon) < words:
        syllables = rng.integers(2, 4)
        lexicon[
            "".join(rng.choice(list(CONSONANTS)) + rng.choice(list(VOWELS)) for _ in range(syllables))
        ] = None
    return list(lexicon)


def make_speaker(name: str, rng: np.random.Generator) -> Speaker:
    """Draw a speaker's voice at random."""
    return Speaker(
        name=name,
        tract_scale=float(rng.uniform(0.85, 1.2)),
        pitch_hz=float(rng.uniform(90.0, 230.0)),
        rate=float(rng.uniform(0.85, 1.2)),
        noise=float(10.0 ** rng.uniform(-3.3, -2.0)),
    )


def speak(sentence: str, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """Utter a sentence: float32 samples at 16 kHz, peak 0.5 before the noise floor."""
    pieces = [np.zeros(int(rng.uniform(0.2, 0.5) * SAMPLE_RATE_HZ))]
    phase = 0.0
    for letter in sentence:
        seconds = (0.17 if letter in VOWELS else 0.1) / speaker.rate * rng.uniform(0.9, 1.1)
        count = int(seconds * SAMPLE_RATE_HZ)
        if letter == " ":
            pieces.append(np.zeros(count))
            continue
        if letter in UNVOICED:
            source = rng.standard_normal(count) * 0.15
        else:
            pitch = speaker.pitch_hz * rng.uniform(0.95, 1.05)
            track = phase + np.cumsum(np.full(count, pitch / SAMPLE_RATE_HZ))
            phase = track[-1] % 1.0
            source = np.diff(np.floor(track), prepend=np.floor(track[0])) + 0.01 * rng.standard_normal(count)
        sound = source
        for formant_hz, width_hz in zip(letter_formants_hz(letter), (80.0, 110.0, 160.0), strict=True):
            centre = min(formant_hz * speaker.tract_scale, 0.45 * SAMPLE_RATE_HZ)
            radius = np.exp(-np.pi * width_hz / SAMPLE_RATE_HZ)
            angle = 2 * np.pi * centre / SAMPLE_RATE_HZ
            denominator = [1.0, -2.0 * radius * np.cos(angle), radius**2]
            sound = scipy.signal.lfilter([sum(denominator)], denominator, sound)
        edge = min(80, count // 4)
        envelope = np.ones(count)
        envelope[:edge] = np.linspace(0.0, 1.0, edge)
        envelope[-edge:] = np.linspace(1.0, 0.0, edge)
        level = np.sqrt(np.mean(np.square(np.asarray(sound)))) + 1e-9
        pieces.append(sound * envelope * (0.12 if letter in VOWELS else 0.06) / level)
    pieces.append(np.zeros(int(rng.uniform(0.2, 0.5) * SAMPLE_RATE_HZ)))
    samples = np.concatenate(pieces)
    samples = 0.5 * samples / np.abs(samples).max()
    samples = samples + speaker.noise * rng.standard_normal(len(samples))
    return np.clip(samples, -1.0, 1.0).astype(np.float32)


def vary_conditions(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Record a clip in conditions of its own: a tilted spectrum, a band limit, coloured noise at 0 to 15 dB.

    Args:
        samples: float32 [sample].
        rng: of the conditions.

    Returns:
        float32 [sample], peak 0.5.
    """
    tilt, cutoff_hz = rng.uniform(-0.7, 0.7), rng.uniform(2500.0, 7500.0)
    tilted = scipy.signal.lfilter([1.0, tilt], [1.0], samples)
    low_pass = scipy.signal.butter(2, cutoff_hz, output="sos", fs=SAMPLE_RATE_HZ)
    heard = scipy.signal.sosfilt(low_pass, tilted)
    colour = rng.uniform(0.0, 0.95)
    noise = scipy.signal.lfilter([1.0], [1.0, -colour], rng.standard_normal(len(heard)))
    ratio = 10.0 ** (rng.uniform(0.0, 15.0) / 20.0)  # of root mean squares, signal over noise
    noise *= np.sqrt(np.mean(np.square(heard)) / np.mean(np.square(noise))) / ratio
    heard = heard + noise
    return (0.5 * heard / np.abs(heard).max()).astype(np.float32)


def write_corpus(folder: Path, config: SyntheticConfig) -> Path:
    """Write a corpus into `folder/xx`, with disjoint speakers in train, dev and test.

    The tables are written last, so a folder with a `validated.tsv` is complete.

    Returns:
        The locale's folder.

    Raises:
        CorpusError: fewer than three speakers, or the folder holds something else.
    """
    _check(config)
    locale = folder / "xx"
    if (locale / "validated.tsv").exists():
        raise CorpusError(f"{locale} holds a corpus already: choose another --out")
    clips = locale / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    lexicon = make_lexicon(config.words, np.random.default_rng((config.seed, 0)))
    rows: list[dict[str, str]] = []
    durations: list[tuple[str, int]] = []
    for number in range(config.speakers):
        rng = np.random.default_rng((config.seed, 1, number))
        speaker = make_speaker(f"synthetic_{number:04d}", rng)
        for index in range(config.clips_per_speaker):
            low, high = config.words_per_sentence
            sentence = " ".join(rng.choice(lexicon, rng.integers(low, high + 1)))
            samples = speak(sentence, speaker, rng)
            if config.conditions == "varied":
                conditions = np.random.default_rng((config.seed, 2, number, index))
                samples = vary_conditions(samples, conditions)
            name = f"{speaker.name}_{index:04d}.flac"
            soundfile.write(clips / name, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
            durations.append((name, round(1000 * len(samples) / SAMPLE_RATE_HZ)))
            rows.append(
                dict.fromkeys(COLUMNS, "")
                | {
                    "client_id": speaker.name,
                    "path": name,
                    "sentence": sentence,
                    "up_votes": "2",
                    "down_votes": "0",
                    "locale": "xx",
                }
            )
    small = max(1, config.speakers // 10)
    split_of = {
        f"synthetic_{n:04d}": "test" if n < small else "dev" if n < 2 * small else "train"
        for n in range(config.speakers)
    }
    with (locale / "clip_durations.tsv").open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, delimiter="\t", lineterminator="\n")
        writer.writerow(("clip", "duration[ms]"))
        writer.writerows(durations)
    for split in ("train", "dev", "test", "validated"):
        with (locale / f"{split}.tsv").open("w", encoding="utf-8", newline="") as lines:
            writer = csv.DictWriter(lines, COLUMNS, delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(r for r in rows if split in ("validated", split_of[r["client_id"]]))
    return locale


def _check(config: SyntheticConfig) -> None:
    if config.speakers < 3 or config.clips_per_speaker < 1:
        raise CorpusError("a synthetic corpus needs at least 3 speakers and 1 clip each")
    if not 1 <= config.words <= MAX_WORDS:
        raise CorpusError(f"a synthetic lexicon has 1 to {MAX_WORDS} words, asked for {config.words}")
    if config.seed < 0:
        raise CorpusError(f"the seed must not be negative, got {config.seed}")
