"""`w2v-jax probe`: what simple probes read from frozen encoders, layer by layer."""

from pathlib import Path

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.probe.options import ProbeArguments
from experiments.process import xla_flags


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(ProbeArguments, argv, "w2v-jax probe")
    for share in options.labels:
        if not 0 < share <= 100:
            raise UsageError(f"--labels takes percentages above 0 and up to 100, got {share:g}")
    if options.task != "keywords" and options.column != ProbeArguments.column:
        raise UsageError("--column has a meaning with --task keywords alone")
    if options.seed < 0:
        raise UsageError(f"--seed must be at least 0, got {options.seed}")
    xla_flags.configure_xla(1)
    from experiments.probe import report, run

    result = run.probe(options)
    print(report.terminal(result))
    print(f"report: {report.write(options.out or default_folder(options), result)}")


def default_folder(options: ProbeArguments) -> Path:
    """Name the folder of a report after its encoders, and after its task if that is not keywords."""
    names = "-".join(Path(run.removeprefix("hf:")).name for run in options.runs)
    task = "" if options.task == "keywords" else f"-{options.task}"
    return Path("runs") / f"probe-{names}{task}"
