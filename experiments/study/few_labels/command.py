"""`w2v-jax study few-labels`: fine-tune pre-trained and untrained encoders with few labels."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process.files import read_json
from experiments.process.provenance import record_provenance
from experiments.report.writer import write_report
from experiments.study.cells import check_counts, run_cells
from experiments.study.few_labels import arms as plan
from experiments.study.few_labels import results
from w2v_jax.errors import UserError

SCALES: dict[str, tuple[str, ...]] = {
    "smoke": ("--updates", "2", "--evaluate-every", "1"),
    "small": (),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewLabelsArguments:
    """Fine-tune the encoders of `study representations` with few labels, beside encoders from scratch and
    log-mel. Continues when rerun.

    example: w2v-jax study few-labels --data corpora/ar --representations runs/representations
    """

    data: Path
    """A Common Voice locale's folder with train, dev and test of different speakers, whose `sentence` is a
    word."""
    representations: Path = Path("runs/representations")
    """Folder of a finished `study representations`."""
    encoders: tuple[Literal["best-rq", "wav2vec2", "wav2vec2-waveform"], ...] | None = None
    """Encoders to take. Default: all of that study."""
    trainings: (
        tuple[Literal["centralised", "ten clients", "loss-weighted", "speakers", "diloco"], ...] | None
    ) = None
    """Ways of pre-training to take. Default: all of that study."""
    labels: float = 10.0
    """Percentage of the training clips of each class to use."""
    scale: Literal["smoke", "small"] = "small"
    """Size of the runs. small takes a minute or two a run on two cores. smoke is a trial of minutes."""
    seeds: int | None = None
    """Number of seeds to take; they are 0, 1, and so on. Default: all of that study."""
    jobs: int = 1
    """Number of runs side by side; they share the machine, so each takes longer."""
    out: Path = Path("runs/few-labels")
    """Folder for few-labels.json, .md and .png; the runs are in its folder `cells`."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(FewLabelsArguments, argv, "w2v-jax study few-labels")
    if not 0 < options.labels <= 100:
        raise UsageError(f"--labels must be above 0 and at most 100 (percent), got {options.labels:g}")
    study = read_study(options.representations)
    seeds = study["seeds"] if options.seeds is None else options.seeds
    check_counts(dataclasses.replace(options, seeds=seeds))
    if seeds > study["seeds"]:
        raise UsageError(f"--seeds {seeds}: {options.representations} has {study['seeds']}")
    chosen = plan.arms(study, options.encoders, options.trainings)
    if not any(arm.pretrained for arm in chosen):
        held = dict.fromkeys(f"{row['encoder']} {row['training']}" for row in study["rows"])
        raise UserError(
            f"{options.representations} has no run of these --encoders and --trainings: it has "
            f"{', '.join(held)}"
        )
    from experiments.data import corpora

    corpora.check_transcripts(str(options.data))
    cells = {
        (arm, seed): plan.finetuning(
            *(arm, seed, str(options.data), options.labels, options.representations),
            *(SCALES[options.scale], options.out),
        )
        for seed in range(seeds)
        for arm in chosen
    }
    run_cells(list(cells.values()), "fine-tuning", options.jobs)
    result = results.collect(
        chosen,
        {
            key: (read_json(cell.out / cell.product), read_json(cell.out / "data.json"))
            for key, cell in cells.items()
        },
    )
    result |= {
        "labels": options.labels,
        "scale": options.scale,
        "seeds": seeds,
        "data": str(options.data),
        "pretraining": study["provenance"],
        "audio_seconds": max(row["audio_seconds"] for row in study["rows"]),
        "provenance": record_provenance("study few-labels"),
    }
    print(write(result, options.out))
    print(f"written: {options.out / 'few-labels.json'}, few-labels.md, few-labels.png")


def read_study(folder: Path) -> dict[str, Any]:
    """Read the result of a study of representations.

    Raises:
        UserError: there is none in the folder.
    """
    path = folder / "representations.json"
    if not path.exists():
        raise UserError(
            f"{folder} has no representations.json: give the folder of a finished `w2v-jax study "
            "representations` (--representations)"
        )
    return read_json(path)


def write(result: dict[str, Any], out: Path) -> str:
    """Write few-labels.json, .md and .png, and return the text."""
    from experiments.study.few_labels import report

    return write_report(out, "few-labels", result, report.markdown, report.draw)
