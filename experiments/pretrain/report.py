"""The report of a pre-training run: curves as PNG, a Markdown page and a self-contained HTML page."""

import statistics
from pathlib import Path
from typing import Any

from experiments.doctor import run_section
from experiments.pretrain import curves as curves_picture
from experiments.pretrain import diagnostics_report, outcome, recipes
from experiments.pretrain.curves import WINDOW
from experiments.process.files import read_json, replace_file
from experiments.report.footer import footer
from experiments.report.page import self_contained_html
from experiments.report.prose import bullets, fold
from experiments.report.tables import facts, table
from experiments.report.units import UNKNOWN, by_reason, byte_size, number, percent
from experiments.runs.folder import DIAGNOSTICS, read_config, read_metrics
from experiments.runs.metric_columns import PACE, RATE_SHARE
from experiments.runs.tasks import CODE_SHARE, HELDOUT, OVER_CONTROL, Task, read_task_run, task_of

FILES = """`metrics.jsonl` has a line for each round, and `events/` the same numbers for TensorBoard. `diagnostics.jsonl`
is there with `--diagnose-every`. `untrained.json` holds the evaluation before training, `clips.json` the clients and
the skipped clips, `starts.jsonl` the commit and versions of every start. `checkpoints/` and `config.json` let the
same command continue an interrupted run; a larger `--rounds` lengthens a finished one."""
CHANCE = "chance_accuracy"  # of training lines it is that of the held-out clips
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
    settings, looks = config["settings"], read_metrics(folder / DIAGNOSTICS)
    sections = [
        "# Pre-training report",
        bullets(outcome.sentences(task, lines, untrained, settings, clips)),
        run_section.of_folder(folder).strip(),
        "## What was learnt",
        _learnt(task, lines, untrained, clips),
        f"![curves]({curves})",
        fold("How to read the table and the curves", _about(task, settings)),
        diagnostics_report.markdown(looks, clients, task) if looks else "",
        "## What was run",
        facts(_facts(lines, config, clips)),
        footer(config["provenance"]),
        fold("Files beside this report", files),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _learnt(task: Task, lines: list[dict[str, Any]], untrained: dict[str, Any], clips: dict[str, Any]) -> str:
    """Make the table of held-out and of training values, and say so where the held-out voices were heard."""
    by_clip, first, last = clips.get("heldout_clips"), lines[0], lines[-1]
    evaluated = [line for line in lines if line.get("heldout_accuracy") is not None]
    now = evaluated[-1] if evaluated else {}
    held_out = (
        f"{by_clip} held-out clips" if by_clip else f"{len(clips['heldout_speakers'])} held-out speakers"
    )
    rounds = (f"training, round {first['round']}", f"training, round {last['round']}")
    head = (f"on {held_out}", "untrained", f"round {now.get('round', '-')}", *rounds, "better")
    rows = []
    for name, column, better in _names(task):
        training = [None if column == CHANCE else line.get(column) for line in (first, last)]
        values = [untrained.get(column), now.get(HELDOUT + column), *training]
        if any(value is not None for value in values):
            cells = [None if value is None else f"{value:.4g}" for value in values]
            rows.append((name, *cells, better))
    told = table(head, rows)
    if by_clip:
        told += "\n\nTheir speakers are also trained on: the table says nothing about new voices."
    return told


def _names(task: Task) -> list[tuple[str, str, str | None]]:
    """List the rows of the table: name, column, and which value is better."""
    names: list[tuple[str, str, str | None]] = [
        ("accuracy over control", OVER_CONTROL, "higher"),
        ("accuracy", "accuracy", "higher"),
        ("accuracy, context shuffled (control)", "shuffled_accuracy", None),
        (f"accuracy by {task.chance}", CHANCE, None),
    ]
    for column, name in outcome.terms(task).items():
        unit = "before its weight" if column in outcome.REGULARISERS else "nats"
        names.append((f"{name} ({unit})", column, "lower" if column == task.loss else None))
    names += [
        (f"{task.codes_name} (perplexity)", task.codes, f"not {task.groups}"),
        (f"{task.codes_name}, share of all {task.entries}", CODE_SHARE, None),
    ]
    if not task.trains_codes:
        names.append(("codes of the frames (perplexity, fixed)", "code_perplexity", None))
    return names


def _about(task: Task, settings: dict[str, Any]) -> str:
    """Explain the task, the control, the codes and the losses of clients."""
    return f"""The model hears speech with stretches of it hidden, and learns {task.learns} ({task.name}).

The control is the same model with its context shuffled in time: it keeps what the frames of a clip share. Compare
the accuracy with the control and with that of {task.chance}, not with zero.

{task.about_codes}
{_losses(settings)}"""


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
The band from the best to the worst client's loss is over {band}. The column `client_losses`, {used},
is over {window}."""


def _facts(
    lines: list[dict[str, Any]], config: dict[str, Any], clips: dict[str, Any]
) -> list[tuple[str, Any]]:
    """Make the rows of what was run."""
    settings = config["settings"]
    skipped = by_reason(clips["skipped_by_reason"], none="none")
    changed = by_reason(clips.get("changed_by_reason", {}), none="none")
    updates = lines[-1]["updates"] // len(lines)
    crops = f"{settings['batch_size']} x {settings['crop_seconds']} s"
    up, down = (sum(line[f"bytes_{way}"] for line in lines) for way in ("up", "down"))
    return [
        ("clips of the corpus", f"skipped: {skipped}; changed: {changed}"),
        ("model", f"{settings['model']}, {settings['precision']}, method {settings.get('method', 'plain')}"),
        ("clients", _clients(clips)),
        *_corruption(clips, lines),
        ("local training", f"{updates} updates a round of {crops}, peak rate {settings['learning_rate']}"),
        *_lengthened(config),
        *_pace(lines),
        ("bytes of all clients", f"{byte_size(up)} up, {byte_size(down)} down"),
        *([("privacy", caveat)] if (caveat := recipes.privacy_caveat(settings)) else []),
        ("seed", settings["seed"]),
    ]


def _pace(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Make the row of the median pace, without the first round, which compiled; none if it is unknown."""
    later = lines[1:] or lines
    paces = [line[PACE] for line in later if line.get(PACE) is not None]
    shares = [line[RATE_SHARE] for line in later if line.get(RATE_SHARE) is not None]
    if not paces:
        return []
    share = f"; {percent(statistics.median(shares), 1)} of the device's rate" if shares else ""
    return [("pace (median)", f"{number(statistics.median(paces))} s of speech a second{share}")]


def _lengthened(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Make the row of a run that was lengthened: its plans, and when each ended."""
    plans = [f"{step['planned']} until round {step['after']}" for step in config.get("lengthened", [])]
    now = config["settings"].get("rounds")
    words = f"{', then '.join(plans)}, then {now}; the learning rate followed the plan of the time"
    return [("planned rounds", words)] if plans else []


def _clients(clips: dict[str, Any]) -> str:
    """Say how the corpus was dealt, and whether speakers of evaluation splits were heard."""
    dealt = clips.get("partition")
    words = "none: one model on everything"
    if dealt:
        rule = dealt["rule"]
        kind = rule["kind"] + (f" ({rule['column']}, alpha {rule['alpha']})" if "alpha" in rule else "")
        seconds = " / ".join(f"{value:.0f}" for value in dealt["seconds_min_median_max"])
        speakers = " / ".join(f"{value:.0f}" for value in dealt["speakers_min_median_max"])
        words = f"{dealt['clients']}, {kind}: {seconds} s and {speakers} speakers each (min / median / max)"
    heard = [
        f"{UNKNOWN if count is None else count} of {split}"
        for split, count in clips.get("speakers_also_in", {}).items()
        if count != 0
    ]
    return words + (
        f"; speakers heard in training that are also in other splits: {', '.join(heard)}" * bool(heard)
    )


def _corruption(clips: dict[str, Any], lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Make the row of the clients whose audio was spoilt, with their weight; none without such clients."""
    spoilt = clips.get("corruption")
    if not spoilt:
        return []
    share = sum(line["corrupted_weight"] for line in lines) / len(lines)
    fair = len(spoilt["clients"]) / len(clips["clients"])
    words = (
        f"{len(spoilt['clients'])} of {len(clips['clients'])} trained on spoilt audio "
        f"({spoilt['kind']}): {', '.join(spoilt['clients'])}; their weight was {share:.3f} on average, their "
        f"share of the clients is {fair:.3f}"
    )
    return [("corrupted clients", words)]
