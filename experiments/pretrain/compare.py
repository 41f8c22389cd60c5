"""`w2v-jax compare`: runs side by side, over updates and over audio seen."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.pretrain import curves, recipes
from experiments.pretrain import report as pretraining_report
from experiments.pretrain.report import total_seconds
from experiments.process.files import read_json, replace_file
from experiments.report.figures import picture
from experiments.report.tables import table
from experiments.report.writer import write_report
from experiments.runs.folder import read_config, read_metrics
from experiments.runs.metric_columns import series


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """Draw the held-out curves of several pre-training runs, tabulate where they ended, keep their reports.

    example: w2v-jax compare runs/ten-clients-tiny-fedavg runs/centralised-tiny --out reports/compare
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of w2v-jax pretrain."""
    out: Path
    """Folder for compare.json, compare.md and compare.png, and for each run's report and metrics."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, read from its folder."""

    folder: Path
    label: str
    config: dict[str, Any]
    untrained: dict[str, float]
    lines: list[dict[str, Any]]


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UsageError: the folder is not one of `w2v-jax pretrain`, or the run has no evaluated round yet.
    """
    if not (folder / "config.json").exists() or not (folder / "untrained.json").exists():
        raise UsageError(
            f"RUNS: {folder} is not a run folder of w2v-jax pretrain (no config.json or untrained.json)"
        )
    config, lines = read_config(folder), read_metrics(folder / "metrics.jsonl")
    if not any("heldout_accuracy" in line for line in lines):
        raise UsageError(f"{folder} has no evaluated round yet")
    settings = config["settings"]
    label = settings["preset"]
    if label != "centralised":
        label += f", {settings['aggregation']}"
    if (corruption := settings.get("corruption", "none")) != "none":
        label += f", {corruption}"
    audio = 0.0
    for line in lines:
        audio += line["audio_seconds"]
        line["audio_hours"] = audio / 3600
    return Run(folder, label, config, read_json(folder / "untrained.json"), lines)


def summary(run: Run) -> dict[str, Any]:
    """Summarise where a run ended."""
    last = next(line for line in reversed(run.lines) if "heldout_accuracy" in line)
    settings, provenance = run.config["settings"], run.config["provenance"]
    return {
        "run": run.label,
        "model": settings["model"],
        "rounds": last["round"],
        "updates": last["updates"],
        "audio_hours": last["audio_hours"],
        "untrained_contrastive": run.untrained["contrastive"],
        "untrained_accuracy": run.untrained["accuracy"],
        "untrained_accuracy_standard_error": run.untrained["accuracy_standard_error"],
        "contrastive": last["heldout_contrastive"],
        "accuracy": last["heldout_accuracy"],
        "accuracy_standard_error": last["heldout_accuracy_standard_error"],
        "chance_accuracy": last["heldout_chance_accuracy"],
        "shuffled_accuracy": last["heldout_shuffled_accuracy"],
        "code_perplexity": last["heldout_code_perplexity"],
        "seconds": total_seconds(run.lines),
        "skipped_clients": sum(line["skipped_clients"] for line in run.lines),
        "seed": settings["seed"],
        "command": provenance["command"],
        "commit": provenance["commit"],
        "versions": provenance["versions"],
        "device": provenance["device"],
        "cores": provenance["cores"],
        "xla_flags": provenance["xla_flags"],
    }


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(CompareArguments, argv, "w2v-jax compare")
    runs = [read_run(folder) for folder in options.runs]
    rows = [summary(run) for run in runs]
    names = [run.label.replace(", ", "-") for run in runs]
    names = [name if names.count(name) == 1 else f"{name}-{i}" for i, name in enumerate(names, start=1)]
    write_report(
        options.out,
        "compare",
        {"rows": rows},
        lambda result: markdown(result["rows"], names),
        lambda _, path: draw(runs, path),
    )
    for name, run in zip(names, runs, strict=True):
        keep_report(run.folder, options.out, name)
    print(f"written: {options.out / 'compare.json'}, compare.md, compare.png and {len(runs)} reports")


def keep_report(folder: Path, out: Path, name: str) -> None:
    """Write a run's report, picture and metrics beside the comparison, under a name of their own."""
    curves.draw_run(folder, out / f"{name}.png")
    pretraining_report.draw_clients(folder, out / f"{name}-clients.png")
    files = f"[{name}.jsonl]({name}.jsonl) has a line for each round."
    replace_file(
        out / f"{name}.md", pretraining_report.text(folder, f"{name}.png", files, f"{name}-clients.png")
    )
    replace_file(out / f"{name}.jsonl", (folder / "metrics.jsonl").read_text(encoding="utf-8"))


def above_untrained(row: dict[str, Any]) -> float:
    """Compute the accuracy gained over the untrained model, in standard errors of the difference over clips."""
    error = math.hypot(row["accuracy_standard_error"], row["untrained_accuracy_standard_error"])
    return (row["accuracy"] - row["untrained_accuracy"]) / error if error else math.inf


def times(accuracy: float, reference: float) -> str:
    """Format an accuracy as a multiple of a reference; a dash if the reference is zero."""
    return f"{accuracy / reference:.1f}" if reference else "-"


def draw(runs: list[Run], path: Path) -> None:
    """Draw held-out loss, accuracy with its control, and codes over updates and over audio seen into a PNG."""
    panels = (
        ("contrastive", "Contrastive loss (nats, lower is better)"),
        ("accuracy", "Accuracy on held-out speakers"),
        ("code_perplexity", "Codes in use (perplexity)"),
    )
    with picture(path, 2, 3, figsize=(14, 7.5)) as axes:
        for row, (x, label) in zip(
            axes, (("updates", "updates per client"), ("audio_hours", "hours of audio seen")), strict=True
        ):
            for axis, (name, title) in zip(row, panels, strict=True):
                for number, run in enumerate(runs):
                    at, values = series(run.lines, f"heldout_{name}", x)
                    values, color = [run.untrained[name], *values], f"C{number}"
                    axis.plot([0, *at], values, "o-", ms=2.5, color=color, label=run.label)
                    if name == "accuracy":
                        axis.plot(*series(run.lines, "heldout_shuffled_accuracy", x), ":", color=color)
                axis.set(title=title, xlabel=label)
                axis.set_xscale("symlog", linthresh=100 if x == "updates" else 1)
                axis.grid(alpha=0.25)
        axes[0][1].plot([], [], ":", color="grey", label="context shuffled (control)")
        axes[0][1].legend(fontsize=8)


def markdown(rows: list[dict[str, Any]], names: list[str]) -> str:
    """Make the comparison for readers.

    Args:
        rows: the summary of each run.
        names: stem of each run's report.
    """
    head = (
        "run", "updates", "audio seen", "contrastive loss (untrained)", "accuracy (untrained)", "s.e.",
        "x guessing", "x shuffled", "codes", "time",
    )  # fmt: skip
    cells = [
        (
            f"[{row['run']}]({name}.md)",
            row["updates"],
            f"{row['audio_hours']:.1f} h",
            f"{row['contrastive']:.3f} ({row['untrained_contrastive']:.3f})",
            f"{row['accuracy']:.3f} ± {row['accuracy_standard_error']:.3f} ({row['untrained_accuracy']:.3f})",
            f"{above_untrained(row):.0f}",
            times(row["accuracy"], row["chance_accuracy"]),
            times(row["accuracy"], row["shuffled_accuracy"]),
            f"{row['code_perplexity']:.0f}",
            f"{row['seconds'] / 60:.1f} min",
        )
        for row, name in zip(rows, names, strict=True)
    ]
    return f"""# Pre-training runs side by side

All values are of held-out speakers: {recipes.EVALUATION_CROP_SECONDS} s crops, no Gumbel noise, fixed keys; ties count as wrong.
The contrastive loss is in nats per masked frame. `s.e.` is the accuracy gained over the untrained model, in standard
errors of the difference over clips. Time is that of rounds and evaluations.

{table(head, cells)}

![curves](compare.png)

## How each was made

{chr(10).join(_made(row) for row in rows)}
"""


def _made(row: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    return (
        f"- {row['run']}: `{row['command']}`, commit {row['commit']}, seed {row['seed']}, {row['device']}, "
        f"{row['cores']} cores, flags `{row['xla_flags']}`, {versions}"
    )
