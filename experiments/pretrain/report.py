"""The report of a pre-training run: curves as PNG, a Markdown page and a self-contained HTML page."""

from pathlib import Path
from typing import Any

from experiments.doctor import run_section
from experiments.pretrain import curves as curves_picture
from experiments.pretrain import diagnostics_report
from experiments.pretrain.curves import WINDOW
from experiments.pretrain.report_facts import run_facts
from experiments.process.files import read_json, replace_file
from experiments.report.page import self_contained_html
from experiments.report.statistics import ratio_if_different
from experiments.report.tables import facts, table
from experiments.runs.folder import DIAGNOSTICS, read_config, read_metrics
from experiments.runs.tasks import (
    CODE_SHARE,
    HELDOUT,
    OVER_CONTROL,
    Task,
    beside_accuracy,
    best_line,
    read_task_run,
    task_of,
)

FILES = """Files: `metrics.jsonl` (a line for each round; the same numbers in `events/` for TensorBoard),
`diagnostics.jsonl` (with `--diagnose-every`), `untrained.json`, `clips.json` (clients and skipped clips),
`checkpoints/`, `config.json`, `starts.jsonl` (commit and versions of every start). The same command
continues an interrupted run; a larger `--rounds` lengthens a finished one."""
# The steps over which a client's loss is taken that loss weighting uses, by the setting WINDOW.
LOSS_WINDOWS = {
    "round": "all local steps of the round",
    "last-epoch": "the client's last local epoch (Gao et al. 2022)",
}


def write(folder: Path) -> None:
    """Write curves.png, report.md and report.html, and diagnostics.png if clients were diagnosed."""
    curves_picture.draw_run(folder, folder / "curves.png")
    draw_clients(folder, folder / "diagnostics.png")
    page = text(folder, "curves.png", FILES, "diagnostics.png")
    replace_file(folder / "report.md", page)
    replace_file(folder / "report.html", self_contained_html(page, folder, "w2v-jax pre-training"))


def draw_clients(folder: Path, path: Path) -> None:
    """Draw a run's clients into a PNG, if they were diagnosed."""
    if lines := read_metrics(folder / DIAGNOSTICS):
        diagnostics_report.draw(lines, path, task_of(read_config(folder)["settings"]))


def text(folder: Path, curves: str, files: str, clients: str) -> str:
    """Make a run's report as Markdown.

    Args:
        curves: name of the picture of its curves.
        files: the paragraph about the files beside it.
        clients: name of the picture of its clients, which is shown if they were diagnosed.
    """
    task, lines, untrained = read_task_run(folder)
    config, clips = read_config(folder), read_json(folder / "clips.json")
    health = run_section.of_folder(folder)
    page = markdown(task, lines, untrained, config, clips, curves, health)
    if looks := read_metrics(folder / DIAGNOSTICS):
        page += f"\n{diagnostics_report.markdown(looks, clients, task)}"
    return page + f"\n{files}\n"


def markdown(
    task: Task,
    lines: list[dict[str, Any]],
    untrained: dict[str, Any],
    config: dict[str, Any],
    clips: dict[str, Any],
    curves: str,
    health: str,
) -> str:
    """Make the page's text.

    Args:
        task: the task of the run.
        lines: the lines of metrics.jsonl, with their shares.
        untrained: content of untrained.json, with its shares.
        config: content of config.json.
        clips: content of clips.json.
        curves: name of the picture of the curves.
        health: the section that says whether the run is healthy.
    """
    settings, last = config["settings"], lines[-1]
    final = {name.removeprefix(HELDOUT): last[name] for name in last if name.startswith(HELDOUT)}
    control = final["shuffled_accuracy"]
    by_clip = clips.get("heldout_clips")
    held_out = (
        f"{by_clip} held-out clips" if by_clip else f"{len(clips['heldout_speakers'])} held-out speakers"
    )
    flattered = (
        "Their speakers are also trained on: the table says nothing about new voices.\n" if by_clip else ""
    )
    head = (f"on {held_out}", "untrained", "now", "better")
    return f"""# Pre-training report

{health}
## What was learnt

The model hears speech with stretches of it hidden, and learns {task.learns}
({task.name}). {_training(settings, clips, len(lines))}

{table(head, _held_out_rows(untrained, final, task))}

{flattered}It {task.hits} {final["accuracy"] / max(final["chance_accuracy"], 1e-9):.1f} times as often as {task.chance} would, and
{against_control(final["accuracy"], control, final["accuracy_standard_error"])}
The control is the same model with its context shuffled in time: it keeps what the frames of a clip share.
The standard error of the accuracy over clips is {final["accuracy_standard_error"]:.2g}.
{_best_round(lines, task)}

![curves]({curves})

How to read the curves: compare the accuracy with the dashed line ({task.chance}) and the red one (the
control), not with zero. {task.about_codes}
{_losses(settings)}
## What was run

{facts(run_facts(lines, config, clips))}

```
{config["provenance"]["command"]}
```
"""


def _held_out_rows(
    untrained: dict[str, Any], final: dict[str, Any], task: Task
) -> list[tuple[str | None, ...]]:
    """Make the rows of held-out values: name, of the untrained model, now, and which is better."""
    names = [
        (f"{task.loss_name} (nats)", task.loss, "lower"),
        ("accuracy", "accuracy", "higher"),
        (f"accuracy by {task.chance}", "chance_accuracy", None),
        ("accuracy, context shuffled (control)", "shuffled_accuracy", None),
        ("accuracy over control", OVER_CONTROL, "higher"),
        (f"{task.codes_name} (perplexity)", task.codes, f"not {task.groups}"),
        (f"{task.codes_name}, share of all {task.entries}", CODE_SHARE, None),
    ]
    if not task.trains_codes:
        names.append(("codes of the frames (perplexity, fixed)", "code_perplexity", None))
    return [
        (
            name,
            *("-" if (value := held.get(column)) is None else f"{value:.4g}" for held in (untrained, final)),
            better,
        )
        for name, column, better in names
    ]


def _best_round(lines: list[dict[str, Any]], task: Task) -> str:
    """Say which round was best, by which column, and what it reached."""
    best = best_line(lines, task)
    if best is None:
        return ""
    held = ""
    if best.get("heldout_accuracy") is not None:
        held = f", held-out accuracy {best['heldout_accuracy']:.4g} ({beside_accuracy(best)})"
    return (
        f"The best round by `{task.best_by}` was {best['round']} of {lines[-1]['round']}: "
        f"{best[task.best_by]:.4g}{held}."
    )


def against_control(accuracy: float, control: float, standard_error: float) -> str:
    """Compare the accuracy with its control, in a sentence; less than two standard errors is no difference."""
    ratio = ratio_if_different(accuracy, max(control, 1e-9), standard_error)
    if ratio is None:
        return (
            f"no better or worse than its control ({accuracy:.4f} and {control:.4f}: less than two standard "
            "errors apart)."
        )
    return f"{ratio:.1f} times as often as its control."


def _training(settings: dict[str, Any], clips: dict[str, Any], rounds: int) -> str:
    """Say in a sentence who trained, and for how long."""
    if settings["preset"] == "centralised":
        return f"One model was trained on all speakers for {rounds} stretches, each as long as a round."
    return (
        f"{settings['clients_per_round']} of {len(clips['clients'])} simulated clients took part in each of "
        f"{rounds} rounds and trained on their own speakers; their models were combined by "
        f"`{settings['aggregation']}`."
    )


def _losses(settings: dict[str, Any]) -> str:
    """Say over which local steps the losses of clients are taken; empty without clients."""
    if settings["preset"] == "centralised":
        return ""
    window = LOSS_WINDOWS[settings.get(WINDOW, "last-epoch")]
    band = "all local steps of the round, and so is `loss`, which lies within it"
    if WINDOW not in settings:
        band = f"{window} in rounds that an older version ran; `loss` is over all local steps"
    used = (
        "which loss weighting used" if settings["aggregation"] == "loss-weighted" else "one for each client"
    )
    return f"""
The band from the best to the worst client's loss is over {band}.
The column `client_losses`, {used}, is over {window}.
"""
