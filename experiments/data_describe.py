"""`w2v-jax data describe`: clips, hours, speakers and lengths of a corpus, with a picture."""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from experiments import arguments, corpora, runtime
from experiments.run_folder import write_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class DescribeArguments:
    """Count what a corpus holds and draw its lengths and speakers.

    example: w2v-jax data describe --data corpora/en --out reports/en
    """

    data: Path
    """A Common Voice locale's folder or its parent."""
    out: Path | None = None
    """Folder for describe.json and describe.png. Left out: print only."""
    split: str = "validated"
    """Table to read."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(DescribeArguments, argv, "w2v-jax data describe")
    corpus = corpora.load(str(options.data), options.split, min_samples=1, seed=0)
    seconds = np.array([clip.seconds for clip in corpus.clips])
    per_speaker = [len(indices) for indices in corpus.speakers().values()]
    quantiles = np.quantile(seconds, (0.0, 0.05, 0.5, 0.95, 1.0))
    summary = {
        "split": options.split,
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
        "with_sentence": sum(bool(clip.row.sentence) for clip in corpus.clips),
        "skipped_by_reason": corpus.skipped_by_reason(),
    }
    for name, value in summary.items():
        print(f"{name.replace('_', ' ')}: {value}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        skipped = [dataclasses.asdict(skip) for skip in corpus.skipped]
        write_json(
            options.out / "describe.json",
            summary | {"skipped": skipped, "provenance": runtime.provenance("data describe")},
        )
        draw(seconds, per_speaker, options.out / "describe.png")
        print(f"written: {options.out / 'describe.json'}, {options.out / 'describe.png'}")


def draw(seconds: np.ndarray, per_speaker: list[int], path: Path) -> None:
    """Histograms of clip lengths and of clips per speaker."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (lengths, speakers) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    lengths.hist(seconds, bins=40, color="C0")
    lengths.axvline(float(np.mean(seconds)), color="C1", label=f"mean {np.mean(seconds):.2f} s")
    lengths.set(title="Length of clips", xlabel="seconds", ylabel="clips")
    lengths.legend()
    speakers.hist(per_speaker, bins=min(40, max(per_speaker)), color="C2")
    speakers.set(title=f"{len(per_speaker)} speakers", xlabel="clips per speaker", ylabel="speakers")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    from experiments.cli import run_command

    sys.exit(run_command("data describe", sys.argv[1:]))
