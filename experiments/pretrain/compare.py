"""`w2v-jax compare`: runs side by side, over updates and over audio seen."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.pretrain import curves, recipes
from experiments.pretrain import report as pretraining_report
from experiments.pretrain.outcome import total_seconds
from experiments.process.files import replace_file
from experiments.report.figures import PAGE_INCHES, legend_above, message, picture
from experiments.report.footer import footer
from experiments.report.tables import table
from experiments.report.units import percent
from experiments.report.writer import write_report
from experiments.runs.algorithm_name import algorithm_name
from experiments.runs.folder import read_config
from experiments.runs.metric_columns import series
from experiments.runs.tasks import (
    CODE_SHARE,
    HELDOUT,
    OVER_CONTROL,
    Task,
    best_line,
    read_task_run,
    speech_heard,
)

MIXED = """**The runs have different objectives, so that their losses, accuracies and codes cannot be compared:**
wav2vec 2.0 picks a frame among distractors, BEST-RQ names its codes. Compare how the encoders do on a labelled
task, or each accuracy with its own control.
"""

UNITS = {
    "accuracy": "share of masked frames",
    OVER_CONTROL: "multiple of the control's",
    CODE_SHARE: "share of all entries",
}


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
    task: Task
    config: dict[str, Any]
    untrained: dict[str, Any]
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
    config, (task, lines, untrained) = read_config(folder), read_task_run(folder)
    if not any("heldout_accuracy" in line for line in lines):
        raise UsageError(f"{folder} has no evaluated round yet")
    settings = config["settings"]
    label = settings["preset"]
    if label != "centralised":
        label += f", {algorithm_name(settings)}"
    if (corruption := settings.get("corruption", "none")) != "none":
        label += f", {corruption}"
    if task.objective != "wav2vec2":
        label += f", {task.objective}"
    audio = 0.0
    for line in lines:
        audio += line["audio_seconds"]
        line["audio_hours"] = audio / 3600
    return Run(folder, label, task, config, untrained, lines)


def summary(run: Run) -> dict[str, Any]:
    """Summarise where a run ended."""
    last = next(line for line in reversed(run.lines) if "heldout_accuracy" in line)
    settings, provenance, task = run.config["settings"], run.config["provenance"], run.task
    best = best_line(run.lines, task)
    speech, padded = speech_heard(run.lines)
    return {
        "run": run.label,
        "objective": task.objective,
        "task_loss": task.loss,  # names of columns
        "task_codes": task.codes,
        "model": settings["model"],
        "rounds": last["round"],
        "updates": last["updates"],
        "audio_hours": last["audio_hours"],
        f"untrained_{task.loss}": run.untrained[task.loss],
        "untrained_accuracy": run.untrained["accuracy"],
        "untrained_accuracy_standard_error": run.untrained["accuracy_standard_error"],
        task.loss: last[task.heldout_loss],
        "best_round": best and best["round"],
        "accuracy": last["heldout_accuracy"],
        "accuracy_standard_error": last["heldout_accuracy_standard_error"],
        "chance_accuracy": last["heldout_chance_accuracy"],
        "shuffled_accuracy": last["heldout_shuffled_accuracy"],
        OVER_CONTROL: last.get(HELDOUT + OVER_CONTROL),
        task.codes: last[HELDOUT + task.codes],
        CODE_SHARE: last.get(HELDOUT + CODE_SHARE),
        "speech_seconds": speech,
        "padded_share": padded,
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
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", run.label.replace(", ", "-")) for run in runs]
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
    """Draw held-out loss, accuracy, its multiple of the control, and codes over updates and speech into a PNG."""
    tasks = {run.task.objective: run.task for run in runs}
    losses = " or ".join(task.loss_name for task in tasks.values())
    panels = (
        (None, f"{losses.capitalize()} (lower is better)"),
        ("accuracy", "Accuracy on held-out speech"),
        (OVER_CONTROL, "Accuracy over its control"),
        (CODE_SHARE, "Codes (perplexity)"),
    )
    sides = (("updates", "updates per client"), ("audio_hours", "audio seen, h"))
    with picture(path, len(panels), 2, figsize=(PAGE_INCHES, 11.5)) as axes:
        for row, (name, title) in zip(axes, panels, strict=True):
            for axis, (x, label) in zip(row, sides, strict=True):
                for number, run in enumerate(runs):
                    style = ("o-", "s--", "^-.")[number // 10 % 3]
                    curves.draw_heldout(
                        axis, run.lines, run.untrained, name or run.task.loss, style, x=x, ms=2.5,
                        color=f"C{number % 10}", label=run.label,
                    )  # fmt: skip
                    if name == "accuracy":
                        control = series(run.lines, "heldout_shuffled_accuracy", x)
                        axis.plot(*control, ":", color=f"C{number % 10}")
                axis.set(title=title, xlabel=label)
                axis.set_xscale("symlog", linthresh=100 if x == "updates" else 1)
                axis.grid(alpha=0.25)
            row[0].set_ylabel("nats" if name is None else UNITS[name])
        legend_above([axes[0][0]])
        message(
            axes[0][0],
            f"{_ends(runs)} A line is one run of one seed, so that there are no error bars. Dotted: the same "
            "model with its context shuffled, the control. Horizontal axes are linear up to "
            "100 updates or 1 h, and logarithmic beyond.",
        )


def _ends(runs: list[Run]) -> str:
    """Say how many times its control's accuracy each run ends at."""
    words = []
    for run in runs:
        last = next(line for line in reversed(run.lines) if "heldout_accuracy" in line)
        if (ratio := last.get(HELDOUT + OVER_CONTROL)) is not None:
            words.append(f"{ratio:.1f} ({run.label})")
    return f"Accuracy over its control at the end: {', '.join(words)}." if words else ""


def markdown(rows: list[dict[str, Any]], names: list[str]) -> str:
    """Make the comparison for readers.

    Args:
        rows: the summary of each run.
        names: stem of each run's report.
    """
    mixed = len({row["objective"] for row in rows}) > 1
    loss = (
        "task's loss" if mixed else "cross-entropy" if rows[0]["task_loss"] == "loss" else "contrastive loss"
    )
    head = (
        "run", "updates", "audio seen", f"{loss} (untrained)", "accuracy (untrained)", "s.e.",
        "x chance", "x shuffled", "codes", "of all", "best round", "padding", "time",
    )  # fmt: skip
    cells = [
        (
            f"[{row['run']}]({name}.md)",
            row["updates"],
            f"{row['audio_hours']:.1f} h",
            f"{row[row['task_loss']]:.3f} ({row['untrained_' + row['task_loss']]:.3f})",
            f"{row['accuracy']:.3f} ± {row['accuracy_standard_error']:.3f} ({row['untrained_accuracy']:.3f})",
            f"{above_untrained(row):.0f}",
            times(row["accuracy"], row["chance_accuracy"]),
            times(row["accuracy"], row["shuffled_accuracy"]),
            f"{row[row['task_codes']]:.0f}",
            percent(row[CODE_SHARE]),
            row["best_round"],
            percent(row["padded_share"]),
            f"{row['seconds'] / 60:.1f} min",
        )
        for row, name in zip(rows, names, strict=True)
    ]
    made = "\n\n".join(f"**{row['run']}**, seed {row['seed']}: {footer(row)}" for row in rows)
    return f"""# Pre-training runs side by side

All values are of held-out speech: {recipes.EVALUATION_CROP_SECONDS} s crops, no Gumbel noise, fixed keys; ties count as wrong.
{MIXED if mixed else ""}The loss is in nats per masked frame. `s.e.` is the accuracy gained over the untrained model, in standard
errors of the difference over clips. `codes` is a perplexity, and `of all` its share of all entries. The best round
has the lowest held-out loss of the task, or is best by --keep-best. Time is that of rounds and evaluations.

{table(head, cells)}

![curves](compare.png)

## How each was made

{made}
"""
