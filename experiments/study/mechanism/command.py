"""`w2v-jax study mechanism`: measure what loss-weighted averaging rewards, with clean and spoilt clients."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments.options import arguments
from experiments.options.spelling import option_name
from experiments.process.provenance import record_provenance
from experiments.report.writer import write_report
from experiments.runs.folder import read_config
from experiments.study.cells import Cell, check_counts, run_cells
from experiments.study.mechanism import settings as mechanism
from experiments.study.mechanism.settings import CLEAN, Setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """The length of one run; `words` are further options of `pretrain`."""

    rounds: int
    local_steps: int
    diagnose_every: int
    words: tuple[str, ...] = ()


SCALES = {
    "smoke": Scale(
        rounds=2,
        local_steps=1,
        diagnose_every=1,
        words=("--batch", "2", "--seconds", "0.8", "--heldout-speakers", "2"),
    ),
    "small": Scale(rounds=12, local_steps=8, diagnose_every=3),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MechanismArguments:
    """Pre-train ten clients many times, two of them with spoilt audio. Continues when rerun.

    example: w2v-jax study mechanism --data corpora/en --scale small --seeds 3
    """

    data: Path | None = None
    """A Common Voice locale's folder or its parent. Default: a synthetic corpus."""
    scale: Literal["smoke", "small"] = "small"
    """Size of the runs. small takes about a minute for each of 14 runs a seed on two cores. smoke is a trial
    of minutes."""
    seeds: int = 3
    """Number of seeds of every setting; they are 0, 1, and so on."""
    jobs: int = 1
    """Number of runs side by side; they share the machine, so each takes longer."""
    out: Path = Path("runs/mechanism")
    """Folder for mechanism.json, mechanism.md and mechanism.png; the runs are in its folder `cells`."""


def cell(options: MechanismArguments, setting: Setting, seed: int) -> Cell:
    """Build the cell of one setting and seed."""
    scale = SCALES[options.scale]
    words = ["pretrain", "--preset", "ten-clients", "--model", "tiny", "--aggregation", setting.rule]
    if setting.temperature is not None:
        words += ["--temperature", f"{setting.temperature:g}"]
    if setting.condition != CLEAN:
        words += ["--corruption", setting.condition]
        words += ["--corrupted-clients", str(mechanism.SPOILT_CLIENTS)]
    if options.data is not None:
        words += ["--data", str(options.data)]
    for name in ("rounds", "local_steps", "diagnose_every"):
        words += [option_name(name), str(getattr(scale, name))]
    words += ["--evaluate-every", str(scale.diagnose_every), *scale.words, "--seed", str(seed)]
    name = f"{setting.name}-{seed}"
    return Cell(name=name, arguments=tuple(words), out=options.out / "cells" / name, product="report.html")


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(MechanismArguments, argv, "w2v-jax study mechanism")
    check_counts(options)
    from experiments.data import corpora

    if options.data is not None:
        corpora.find(str(options.data))
    # Seed by seed, so that an interrupted study has whole seeds.
    plan = [(setting, seed) for seed in range(options.seeds) for setting in mechanism.settings()]
    cells = [cell(options, setting, seed) for setting, seed in plan]
    seconds = run_cells(cells, "study mechanism", options.jobs)
    rows = [
        mechanism.read_cell(made.out, setting, seed) | {"seconds": seconds.get(made.name)}
        for made, (setting, seed) in zip(cells, plan, strict=True)
    ]
    result = {
        "scale": {"name": options.scale} | dataclasses.asdict(SCALES[options.scale]),
        "data": str(options.data) if options.data else None,
        "seeds": options.seeds,
        "rows": rows,
        "groups": mechanism.groups(rows),
        "comparisons": mechanism.comparisons(rows),
        "provenance": provenance(cells),
    }
    print(write(result, options.out))
    print(f"written: {options.out / 'mechanism.json'}, mechanism.md, mechanism.png")


def provenance(cells: list[Cell]) -> dict[str, Any]:
    """Record this command, with device, XLA flags and commits of the processes that trained."""
    runs = [read_config(made.out)["provenance"] for made in cells]
    return record_provenance("study mechanism") | {
        "device": runs[0]["device"],
        "xla_flags": runs[0]["xla_flags"],
        "cell_commits": sorted({run["commit"] for run in runs}),
    }


def write(result: dict[str, Any], out: Path) -> str:
    """Write mechanism.json, mechanism.md and mechanism.png, and return the text of mechanism.md."""
    from experiments.study.mechanism import figures, report

    return write_report(out, "mechanism", result, report.markdown, figures.draw)
