"""`w2v-jax reproduce fig1`: federated against centralised pre-training, and supervised against both."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.options import arguments
from experiments.process.files import read_json, replace_file, write_json
from experiments.process.provenance import record_provenance
from experiments.report.statistics import over_seeds
from experiments.reproduce.fig5 import study_of
from experiments.runs.folder import read_config, read_metrics
from experiments.study import federated as federated_study
from experiments.study import federated_results
from experiments.study.cells import run_cells
from experiments.study.federated import CENTRALISED, SCRATCH, ScaleName, Study, recognised


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fig1Arguments:
    """Figure 1: loss against updates and against audio; supervised against self-supervised compute.

    example: w2v-jax reproduce fig1 --data corpora/en --scale small
    """

    data: Path | None = None
    """A Common Voice locale's folder or its parent, with transcripts. Left out: a synthetic corpus."""
    scale: ScaleName = "small"
    """smoke: to see it work. small: tiny models, hours on two cores. paper: base models, for a GPU."""
    seeds: int = 3
    """Seeds 0, 1, ... of every cell."""
    jobs: int = 1
    """Runs side by side; their times are then those of a shared machine."""
    out: Path = Path("runs/federated")
    """Folder for fig1.json, fig1.md and fig1.png, and for the runs, which reproduce fig5 shares."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(Fig1Arguments, argv, "w2v-jax reproduce fig1")
    study = study_of(options)
    federated_study.prepare(study)
    rates = federated_study.chosen_rates(study, options.jobs)
    run_cells(federated_study.pretraining_cells(study), "pre-training", options.jobs)
    supervised = [study.finetuning(SCRATCH, seed, rates.of_encoder(SCRATCH)) for seed in study.seed_range()]
    run_cells(supervised, "supervised, the same encoder from scratch", options.jobs)
    result = federated_results.fig1(study)
    result["supervised"] = [supervised_curve(cell.out) for cell in supervised]
    result["compute"] = compute(study, [cell.out for cell in supervised])
    result["provenance"] = record_provenance("reproduce fig1") | federated_results.cell_provenance(study)
    write(result, study.out)
    print((study.out / "fig1.md").read_text(encoding="utf-8"))
    print(f"written: {study.out / 'fig1.json'}, fig1.md, fig1.png")


def supervised_curve(folder: Path) -> dict[str, Any]:
    """A fine-tuning's validation loss over updates and audio."""
    lines, audio = [], 0.0
    for line in read_metrics(folder / "metrics.jsonl"):
        audio += line["audio_seconds"]
        lines.append((line["update"], audio, line["dev_loss"], line["dev_cer"]))
    updates, seconds, loss, cer = (list(column) for column in zip(*lines, strict=True))
    return {
        "updates": updates,
        "audio_seconds": seconds,
        "dev_loss": loss,
        "dev_cer": cer,
        "test": recognised(folder),
    }


def compute(study: Study, supervised: list[Path]) -> dict[str, Any]:
    """Operations of both kinds of training: a second of audio, a whole run, and what a run was."""
    from experiments.costs.step.flops import pretraining_flops_per_second, recognition_flops_per_second

    pretrained = study.pretraining(CENTRALISED, 0).out
    audio = over_seeds(
        [
            sum(
                line["audio_seconds"]
                for line in read_metrics(study.pretraining(CENTRALISED, seed).out / "metrics.jsonl")
            )
            for seed in study.seed_range()
        ]
    )
    asr_audio = over_seeds([read_json(folder / "results.json")["audio_seconds"] for folder in supervised])
    ssl = pretraining_flops_per_second(read_config(pretrained)["settings"])
    asr = recognition_flops_per_second(read_json(supervised[0] / "recognizer.json"))
    return {
        "pretraining": {"flops_per_audio_second": ssl, "audio_seconds": audio, "flops": ssl * audio["mean"]},
        "supervised": {
            "flops_per_audio_second": asr,
            "audio_seconds": asr_audio,
            "flops": asr * asr_audio["mean"],
        },
    }


def write(result: dict[str, Any], out: Path) -> None:
    """Write fig1.json, fig1.md and fig1.png."""
    from experiments.reproduce import fig1_report

    write_json(out / "fig1.json", result)
    fig1_report.draw(result, out / "fig1.png")
    replace_file(out / "fig1.md", fig1_report.markdown(result))
