"""`w2v-jax reproduce fig1`: federated against centralised pre-training, and supervised against both."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.options import arguments
from experiments.process.files import read_json
from experiments.process.provenance import record_provenance
from experiments.report.statistics import over_seeds
from experiments.report.writer import write_report
from experiments.reproduce.fig5.command import study_of
from experiments.runs.folder import METRICS, read_config, read_metrics
from experiments.study import convergence, federated_results
from experiments.study import federated as federated_study
from experiments.study.cells import run_cells
from experiments.study.federated import Study
from experiments.study.federated_results import recognised
from experiments.study.federated_scales import CENTRALISED, SCRATCH, ScaleName


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fig1Arguments:
    """Reproduce Figure 1: loss against updates and audio; supervised against self-supervised compute.

    example: w2v-jax reproduce fig1 --data corpora/en --scale small
    """

    data: Path | None = None
    """A Common Voice locale's folder or its parent, with transcripts. Default: a synthetic corpus."""
    scale: ScaleName = "small"
    """Size of the runs. smoke is a trial of minutes. small trains tiny models for hours on two cores. paper
    trains base models, for a GPU."""
    seeds: int = 3
    """Number of seeds of every run; they are 0, 1, and so on."""
    jobs: int = 1
    """Number of runs side by side; they share the machine, so each takes longer."""
    out: Path = Path("runs/federated")
    """Folder for fig1.json, fig1.md, fig1.png and the runs, which `reproduce fig5` uses too."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(Fig1Arguments, argv, "w2v-jax reproduce fig1")
    study = study_of(options)
    federated_study.prepare(study)
    rates = federated_study.chosen_rates(study, options.jobs)
    run_cells(federated_study.pretraining_cells(study), "pre-training", options.jobs)
    supervised = [study.finetuning(SCRATCH, seed, rates.of_encoder(SCRATCH)) for seed in study.seed_range()]
    run_cells(supervised, "supervised, the same encoder from scratch", options.jobs)
    result = convergence.fig1(study)
    result["supervised"] = [supervised_curve(cell.out) for cell in supervised]
    result["compute"] = compute(study, [cell.out for cell in supervised])
    result["provenance"] = record_provenance("reproduce fig1") | federated_results.cell_provenance(study)
    print(write(result, study.out))
    print(f"written: {study.out / 'fig1.json'}, fig1.md, fig1.png")


def supervised_curve(folder: Path) -> dict[str, Any]:
    """Read the validation loss of a fine-tuning over its updates and its audio."""
    lines, audio = [], 0.0
    for line in read_metrics(folder / METRICS):
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
    """Count the operations of pre-training and of supervised training: a second of audio, and a whole run.

    Args:
        study: its first centralised run stands for pre-training.
        supervised: folders of the supervised runs, one a seed.
    """
    from experiments.costs.step.flops import pretraining_flops_per_second, recognition_flops_per_second

    pretrained = study.pretraining(CENTRALISED, 0).out
    audio = over_seeds(
        [
            sum(
                line["audio_seconds"]
                for line in read_metrics(study.pretraining(CENTRALISED, seed).out / METRICS)
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


def write(result: dict[str, Any], out: Path) -> str:
    """Write fig1.json, fig1.md and fig1.png, and return the text of fig1.md."""
    from experiments.reproduce import fig1_report

    return write_report(out, "fig1", result, fig1_report.markdown, fig1_report.draw)
