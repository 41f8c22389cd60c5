"""`w2v-jax probe`: what simple classifiers read from frozen encoders, layer by layer."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeArguments:
    """Judge frozen encoders by the accuracy of simple classifiers of their frames, beside log-mel and random.

    example: w2v-jax probe runs/first --data corpora/it --task keywords
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Encoders: run folders of w2v-jax pretrain (RUN@ROUND for an earlier checkpoint), finetune or convert,
    or hf:FOLDER."""
    data: str
    """Common Voice folder or prepared data set whose clips have classes."""
    task: Literal["keywords", "speaker"] = "keywords"
    """keywords: the class is a column of the table, and test has other speakers than train. speaker: the
    class is the speaker, and every speaker's clips are split."""
    column: str = "sentence"
    """Column that tells the class, for keywords."""
    heads: tuple[Literal["linear", "mlp", "weighted-sum"], ...] = ("linear", "mlp", "weighted-sum")
    """Classifiers. linear: ridge regression. mlp: a network with one hidden layer. weighted-sum: a linear map
    of a learnt sum of the layers. linear alone is the fastest."""
    labels: tuple[float, ...] = (100.0,)
    """Percentages of the training labels that linear probes are trained with, as 1 5 10 100."""
    out: Path | None = None
    """Folder for the report. Left out: runs/probe-NAMES."""
    seed: int = 0
    """Seed of the networks, of the choice of few labels, and of the splits of the task speaker."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(ProbeArguments, argv, "w2v-jax probe")
    for share in options.labels:
        if not 0 < share <= 100:
            raise UsageError(f"--labels takes percentages above 0 and up to 100, got {share:g}")
    if options.seed < 0:
        raise UsageError(f"--seed must be at least 0, got {options.seed}")
    xla_flags.configure_xla(1)
    from experiments.probe import report, run

    result = run.probe(options)
    print(report.terminal(result))
    print(f"report: {report.write(options.out or default_folder(options), result)}")


def default_folder(options: ProbeArguments) -> Path:
    """Name the folder of a report after its encoders, and after its task where that is not keywords."""
    names = "-".join(Path(run.removeprefix("hf:")).name for run in options.runs)
    task = "" if options.task == "keywords" else f"-{options.task}"
    return Path("runs") / f"probe-{names}{task}"
