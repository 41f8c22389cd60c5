"""`w2v-jax data describe`: count clips, hours, speakers and lengths of a corpus, and draw a picture."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments.options import arguments
from experiments.process.files import write_json
from experiments.process.provenance import record_provenance
from experiments.report.figures import PAGE_INCHES, message, picture
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.common_voice import Corpus, lengths


@dataclasses.dataclass(frozen=True, kw_only=True)
class DescribeArguments:
    """Count what a corpus holds and draw its lengths and speakers.

    example: w2v-jax data describe prepared/it --out reports/it
    """

    data: tyro.conf.Positional[Path]
    """A prepared data set, a Common Voice locale's folder, or a release's."""
    out: Path | None = None
    """Folder for describe.json and describe.png. Default: none, the counts are only printed."""
    split: str = "validated"
    """Table of the clips to count."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(DescribeArguments, argv, "w2v-jax data describe")
    from experiments.data import corpora

    corpora.find(str(options.data), "DATA")
    corpus = corpora.load(str(options.data), options.split, min_samples=1, seed=0)
    seconds = lengths(corpus.clips) / SAMPLE_RATE_HZ
    per_speaker = [len(indices) for indices in corpus.speakers().values()]
    summary = summarise(corpus, seconds, per_speaker)
    for name, value in summary.items():
        if name != "length_histogram" and (value or name != "changed_by_reason"):
            print(f"{name.replace('_', ' ')}: {value}")
    print_histogram(summary["length_histogram"])
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(
            options.out / "describe.json",
            summary
            | {
                "skipped": [dataclasses.asdict(skip) for skip in corpus.skipped],
                "changed": [dataclasses.asdict(change) for change in corpus.changed],
                "provenance": record_provenance("data describe"),
            },
        )
        draw(seconds, per_speaker, options.out / "describe.png")
        print(f"written: {options.out / 'describe.json'}, {options.out / 'describe.png'}")


def summarise(corpus: Corpus, seconds: np.ndarray, per_speaker: Sequence[int]) -> dict[str, Any]:
    """Summarise a corpus.

    Args:
        corpus: the split that is described.
        seconds: float64 [clip], lengths.
        per_speaker: clips of each speaker.
    """
    quantiles = np.quantile(seconds, (0.0, 0.05, 0.5, 0.95, 1.0))
    return {
        "split": corpus.split,
        "clips": len(corpus.clips),
        "hours": float(seconds.sum() / 3600),
        "speakers": len(per_speaker),
        "seconds_mean": float(seconds.mean()),
        "seconds_min_p5_median_p95_max": [round(float(q), 3) for q in quantiles],
        "clips_per_speaker_min_median_max": [
            int(np.min(per_speaker)),
            float(np.median(per_speaker)),
            int(np.max(per_speaker)),
        ],
        "length_histogram": histogram(seconds),
        "skipped_by_reason": corpus.skipped_by_reason(),
        "changed_by_reason": corpus.changed_by_reason(),
    }


def histogram(seconds: np.ndarray) -> list[dict[str, float]]:
    """Count clips by length, in bins of one second; the last bin holds all that are longer than 15 s."""
    edges = np.arange(0, 16)
    counts = np.bincount(np.minimum(seconds.astype(int), edges[-1]), minlength=len(edges))
    return [{"from_seconds": int(edge), "clips": int(n)} for edge, n in zip(edges, counts, strict=True)]


def print_histogram(bins: list[dict[str, float]]) -> None:
    """Print the histogram as bars of text."""
    most = max(row["clips"] for row in bins)
    for row in bins:
        end = f"to {row['from_seconds'] + 1:>2}" if row is not bins[-1] else "and on"
        print(f"{row['from_seconds']:>4} {end} s  {'#' * round(40 * row['clips'] / most):<40} {row['clips']}")


def draw(seconds: np.ndarray, per_speaker: Sequence[int], path: Path) -> None:
    """Draw histograms of clip lengths and of clips per speaker."""
    with picture(path, columns=2, figsize=(PAGE_INCHES, 4)) as (clips, speakers):
        clips.hist(seconds, bins=40, color="C0")
        clips.axvline(float(np.mean(seconds)), color="C1")
        clips.set(title="Length of clips", xlabel="length, s", ylabel="clips")
        speakers.hist(per_speaker, bins=min(40, max(per_speaker)), color="C2")
        speakers.set(title="Clips of speakers", xlabel="clips per speaker", ylabel="speakers")
        message(
            clips,
            f"{len(seconds)} clips, {np.mean(seconds):.2f} s long on average (orange line), of "
            f"{len(per_speaker)} speakers.",
        )
