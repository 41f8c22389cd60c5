"""`w2v-jax reproduce fig5`: ten and a hundred clients, FedAvg and loss weighting, and recognition."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process.provenance import record_provenance
from experiments.report.writer import write_report
from experiments.study import federated as federated_study
from experiments.study import federated_results
from experiments.study.cells import check_counts, run_cells
from experiments.study.federated import Study
from experiments.study.federated_scales import SCALES, ScaleName


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fig5Arguments:
    """Reproduce Figure 5: pre-training curves, and error rates after fine-tuning. Continues when rerun.

    example: w2v-jax reproduce fig5 --data corpora/en --scale small
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
    """Folder for fig5.json, fig5.md, the pictures and the runs, which `reproduce fig1` uses too."""


def study_of(options: Any) -> Study:
    """Build the study that the options of `reproduce fig1` or `fig5` name.

    Raises:
        UsageError: a number of seeds or jobs out of range, or no corpus where one is needed.
    """
    from experiments.data import corpora

    check_counts(options)
    if options.data is None and options.scale == "paper":
        raise UsageError("--scale paper needs --data: a Common Voice locale's folder, Italian in the paper")
    scale = SCALES[options.scale]
    speakers = scale.synthetic_speakers
    if options.data is not None:
        speakers = len(set(corpora.listed(str(options.data), "validated", "client_id")))
        corpora.check_transcripts(str(options.data))
    return Study(
        scale_name=options.scale,
        data=str(options.data or options.out / "corpus"),
        seeds=options.seeds,
        out=options.out,
        heldout_speakers=federated_study.heldout_speakers(speakers, scale.most_clients),
    )


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(Fig5Arguments, argv, "w2v-jax reproduce fig5")
    study = study_of(options)
    federated_study.prepare(study)
    rates = federated_study.chosen_rates(study, options.jobs)
    seconds: dict[str, float] = {}
    for title, cells in (
        ("pre-training", federated_study.pretraining_cells(study)),
        ("fine-tuning", federated_study.finetuning_cells(study, rates)),
        ("probes, budgets, trend", federated_study.fairness_cells(study, rates)),
    ):
        seconds |= run_cells(cells, title, options.jobs)
    result = federated_results.fig5(study, rates, seconds)
    result["jobs"] = options.jobs
    result["provenance"] = record_provenance("reproduce fig5") | federated_results.cell_provenance(study)
    print(write(result, study.out))
    print(f"written: {study.out / 'fig5.json'}, fig5.md, fig5.png, fig5-fairness.png")


def write(result: dict[str, Any], out: Path) -> str:
    """Write fig5.json, fig5.md and both pictures, and return the text of fig5.md."""
    from experiments.reproduce.fig5 import figures, report

    text = write_report(out, "fig5", result, report.markdown, figures.draw)
    figures.draw_fairness(result, out / "fig5-fairness.png")
    return text
