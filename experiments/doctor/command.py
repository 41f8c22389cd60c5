"""`w2v-jax doctor`: say whether a run is healthy, and what to change. Imports no jax, so that it starts at
once."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from experiments.doctor import report
from experiments.doctor.diagnosis import diagnose
from experiments.doctor.reading import read
from experiments.options import arguments
from experiments.options.errors import UsageError

BROKEN = 1  # exit status


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorArguments:
    """Say whether a run is healthy, to be watched or broken, why, and what to change.

    It reads a run folder of pretrain or finetune, finished or not, or its metrics.jsonl; a log of fairseq's
    trainer (JSON or simple format), transformers' trainer_state.json, or SpeechBrain's train_log.txt. The
    exit status is 0 for healthy and watch, 1 for broken, and 2 for a file that is not understood.

    example: w2v-jax doctor runs/ten-clients-tiny-fedavg
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, or the log of another tool."""
    html: Path | None = None
    """File to write a page to, with the findings and the curves, beside the band of healthy runs where one is
    known. Default: none."""
    json: bool = False
    """Print the diagnosis as JSON: verdict, findings and notes."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(DoctorArguments, argv, "w2v-jax doctor")
    if options.html is not None and options.html.is_dir():
        raise UsageError(f"--html takes a file, such as {options.html / 'health.html'}, got a folder")
    curves = read(options.run)
    diagnosis = diagnose(curves)
    if options.html is not None:
        report.write_page(options.html, str(options.run), curves, diagnosis)
        if not options.json:
            print(f"written: {options.html}")
    if options.json:
        print(json.dumps({"run": str(options.run), **diagnosis.as_json()}, indent=2))
    else:
        print(report.text(str(options.run), curves, diagnosis))
    if diagnosis.verdict == "broken":
        sys.exit(BROKEN)
