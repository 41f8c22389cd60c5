"""Corpora of tones for probes: the word is the pitch, so that log-mel tells it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import soundfile

WORDS = {"low": 300.0, "middle": 900.0, "high": 2700.0}


def tone(hertz: float, seconds: float, seed: int) -> np.ndarray:
    """A tone in noise, float64 at 16 kHz."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16_000)) / 16_000
    return 0.2 * np.sin(2 * np.pi * hertz * rng.uniform(0.97, 1.03) * time) + 0.02 * rng.normal(
        size=len(time)
    )


def write(folder: Path, rows: Mapping[str, Iterable[tuple[str, str]]], seconds: float = 0.3) -> Path:
    """Write a locale's folder from (speaker, word) of the clips of each table, each so many seconds long."""
    clips = folder / "clips"
    clips.mkdir(parents=True)
    number = 0
    for split, held in rows.items():
        lines = ["client_id\tpath\tsentence"]
        for speaker, word in held:
            name = f"{speaker}_{number:03d}.flac"
            soundfile.write(clips / name, tone(WORDS.get(word, 500.0), seconds, number), 16_000)
            lines.append(f"{speaker}\t{name}\t{word}")
            number += 1
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    tables = [(folder / f"{split}.tsv").read_text().splitlines() for split in rows]
    (folder / "validated.tsv").write_text(
        "\n".join([tables[0][0], *(row for t in tables for row in t[1:])]) + "\n"
    )
    return folder


def said(speakers: Iterable[str], words: Iterable[str] = WORDS, times: int = 2) -> list[tuple[str, str]]:
    """Let every speaker say every word some times."""
    words = list(words)
    return [(speaker, word) for speaker in speakers for word in words for _ in range(times)]


def write_sentences(folder: Path, rows: Mapping[str, Iterable[tuple[str, str]]]) -> Path:
    """Write a locale's folder from (speaker, sentence); every character is a tone of its own for 0.12 s."""
    made = write(folder, rows)
    for path in sorted((folder / "clips").iterdir()):
        path.unlink()
    number = 0
    for held in rows.values():
        for speaker, sentence in held:
            pitches = [250.0 * 1.7 ** (ord(char.lower()) % 7) for char in sentence] or [500.0]
            tones = [tone(pitch, 0.12, 100 * number + place) for place, pitch in enumerate(pitches)]
            soundfile.write(folder / "clips" / f"{speaker}_{number:03d}.flac", np.concatenate(tones), 16_000)
            number += 1
    return made
