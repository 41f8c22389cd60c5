"""The report of `probe`: a table of arms, scores by layer, and what the best arm gets wrong."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.probe.encoded import LOG_MEL
from experiments.probe.metrics import metric_of
from experiments.process.files import replace_file
from experiments.report.figures import PAGE_INCHES, SMALL_POINTS, label_ends, message, picture
from experiments.report.footer import footer
from experiments.report.page import self_contained_html
from experiments.report.tables import table
from experiments.report.units import by_reason, percent
from experiments.report.writer import write_report

NAME = "result"
TITLES = {"linear": "linear", "mlp": "small network", "weighted_sum": "sum of layers"}
ABOUT_CLASSES = (
    "Layers, penalties and the length of training are chosen on dev. Frames are averaged in six segments of "
    "a clip; nothing of the encoder is trained."
)
ABOUT_CHARACTERS = (
    "Layers are chosen on dev; nothing of the encoder is trained. Every arm has frames of 40 ms (shorter "
    "ones stand side by side), and every probe sees a frame and its two neighbours. Probes are trained with "
    "CTC for a fixed number of epochs; decoding is greedy, without a language model."
)
CONFUSIONS_SHOWN = 10
CLASSES_NAMED = 60  # more do not fit beside the picture


def write(folder: Path, result: dict[str, Any]) -> Path:
    """Write result.json, result.md, result.png and report.html; return the page's path."""
    text = write_report(folder, NAME, result, markdown, draw)
    page = folder / "report.html"
    replace_file(page, self_contained_html(text, folder, f"Probe: {result['task']}"))
    return page


def terminal(result: dict[str, Any]) -> str:
    """Make the table that the terminal shows."""
    return _arms(result)


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    best, metric, written = best_arm(result), metric_of(result["task"]), result["task"] == "characters"
    sections = [
        f"# Probe: {result['task']} of frozen encoders",
        _findings(result),
        _arms(result),
        f"{metric.about} In brackets: the 95 % interval of the mean over test speakers, by Student's t. "
        + (ABOUT_CHARACTERS if written else ABOUT_CLASSES),
        f"![{metric.name} by layer, and test speakers or confusion](result.png)",
        _budgets(result),
        f"## {metric.name.capitalize()} by layer",
        _layers(result),
        f"## Test speakers: {best}",
        _speakers(result, best),
        f"## What {best} {'writes' if written else 'confuses most'}",
        _transcripts(result, best) if written else _confused(result, best),
        "## Data",
        _data(result),
        footer(result["provenance"]),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def best_arm(result: dict[str, Any]) -> str:
    """Name the run whose probe does best on dev."""
    runs = {name: row["linear"] for name, row in result["arms"].items() if row["kind"] == "run"}
    best = metric_of(result["task"]).best(runs.values())
    return next(name for name, score in runs.items() if score is best)


def score_text(result: dict[str, Any], score: dict[str, Any]) -> str:
    """Format an accuracy or an error rate with its interval."""
    ends = score["interval"]
    return percent(score[metric_of(result["task"]).key], 1) + (
        "" if ends is None else f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"
    )


def _arms(result: dict[str, Any]) -> str:
    heads = result["heads"]
    return table(
        ("arm", "best layer", *(TITLES[head] for head in heads)),
        [
            (name, row["linear"]["layer"], *(score_text(result, row[head]) for head in heads))
            for name, row in result["arms"].items()
        ],
    )


def _findings(result: dict[str, Any]) -> str:
    """Say of every run whether it beats log-mel and its random encoder, by the interval of the difference."""
    lines = []
    for name, row in result["arms"].items():
        for baseline, found in row.get("gain", {"linear": {}})["linear"].items():
            against = LOG_MEL if baseline == LOG_MEL else "a random encoder of its shape"
            lines.append(f"- {_sentence(result, name, against, found)}")
    return "\n".join(lines)


def _sentence(result: dict[str, Any], name: str, against: str, found: dict[str, Any]) -> str:
    points, ends = 100 * found["mean"], found["interval"]
    if ends is None:
        return f"{name} is {points:+.1f} points from {against} on the only test speaker."
    told = f"{points:+.1f} points ({100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}) by a linear probe"
    if ends[0] <= 0 <= ends[1]:
        return f"No difference is shown between {name} and {against}: {told}."
    metric = metric_of(result["task"])
    return f"{name} {metric.better if metric.improves(points) else metric.worse} {against}: {told}."


def _budgets(result: dict[str, Any]) -> str:
    rows = {name: row for name, row in result["arms"].items() if row["budgets"]}
    if not rows:
        return ""
    budgets = next(iter(rows.values()))["budgets"]
    head = [f"{100 * held['share']:g} % ({held['clips']} clips)" for held in budgets]
    return "## Few labels: linear probes\n\n" + table(
        ("arm", *head, "all"),
        [
            (name, *(score_text(result, held) for held in [*row["budgets"], row["linear"]]))
            for name, row in rows.items()
        ],
    )


def _layers(result: dict[str, Any]) -> str:
    kinds, metric = [key for key in ("linear", "mlp") if key in result["heads"]], metric_of(result["task"])
    titles = [f"{TITLES[key]}, {split}" for key in kinds for split in ("dev", "test")]
    return table(
        ("arm", "layer", *titles),
        [
            (
                name,
                layer,
                *(percent(held[key][which], 1) for key in kinds for which in (metric.dev_key, metric.key)),
            )
            for name, row in result["arms"].items()
            for layer, held in row["layers"].items()
        ],
    )


def _speakers(result: dict[str, Any], best: str) -> str:
    names = [LOG_MEL, result["arms"][best]["random"], best]
    scores = {name: result["arms"][name]["linear"]["by_speaker"] for name in names}
    speakers = sorted(scores[best], key=scores[best].__getitem__)
    return table(
        ("speaker", *names),
        [(speaker, *(percent(held[speaker], 1) for held in scores.values())) for speaker in speakers],
    )


def _confused(result: dict[str, Any], best: str) -> str:
    counts = np.array(result["arms"][best]["linear"]["confusion"])
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:CONFUSIONS_SHOWN]
    pairs = [np.unravel_index(index, counts.shape) for index in order]
    classes = result["classes"]
    rows = [
        (classes[true], classes[given], counts[true, given]) for true, given in pairs if counts[true, given]
    ]
    return table(("class", "taken for", "clips"), rows) if rows else "Nothing: every test clip is right."


def _transcripts(result: dict[str, Any], best: str) -> str:
    return table(("spoken", "written"), result["arms"][best]["linear"]["transcripts"])


def _data(result: dict[str, Any]) -> str:
    clips = result["clips"]
    rows = [
        (split, held["clips"], held["speakers"], f"{held['seconds'] / 60:.1f}")
        for split, held in clips["splits"].items()
    ]
    notes = [f"- {note}" for note in result["notes"]]
    left_out = f"Left out: {by_reason(clips['left_out'], none='nothing')}."
    return "\n\n".join(
        [
            f"`{result['data']}`, column `{result['column']}`: {len(result['classes'])} "
            f"{'characters' if result['task'] == 'characters' else 'classes'}.",
            table(("split", "clips", "speakers", "minutes"), rows),
            left_out,
            *(["\n".join(notes)] if notes else []),
        ]
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw scores by layer with the baselines, and the confusion or the test speakers of the best arm."""
    best, written = best_arm(result), result["task"] == "characters"
    named = 0 if written else min(len(result["classes"]), CLASSES_NAMED)
    heights = (4, max(4, 2.5 + 0.13 * named))  # inches; 0.13 holds a name of a class
    size, ratios = (PAGE_INCHES, sum(heights) + 0.8), {"height_ratios": heights}
    with picture(path, 2, 1, figsize=size, gridspec_kw=ratios) as (layers, lower):
        _draw_layers(result, layers)
        (_draw_speakers if written else _draw_confusion)(result, best, lower)
        label_ends(layers)
        if written:
            label_ends(lower)
        message(layers, _caption(result, best))


def _caption(result: dict[str, Any], best: str) -> str:
    """Say what the best arm reaches beside its baselines, and on how much."""
    arms, test = result["arms"], result["clips"]["splits"]["test"]
    log_mel = f"; {LOG_MEL} has {score_text(result, arms[LOG_MEL]['linear'])}" if LOG_MEL in arms else ""
    speakers = len(arms[best]["linear"]["by_speaker"])
    return (
        f"With linear probes {best} has the {metric_of(result['task']).name} "
        f"{score_text(result, arms[best]['linear'])} on test{log_mel}. Brackets: 95 % t interval of the mean "
        f"over {speakers} test speakers. A point is one probe, scored on {test['clips']} clips of test; it "
        "has no error bar."
    )


def _draw_confusion(result: dict[str, Any], best: str, axis: Any) -> None:
    counts = np.array(result["arms"][best]["linear"]["confusion"], float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shown = axis.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axis.figure.colorbar(
        shown, ax=axis, label="clips of the class, %", location="bottom", fraction=0.03, aspect=40
    )
    axis.set(title=f"Confusion: {_short(best, result['arms'])}", xlabel="given class", ylabel="true class")
    if len(counts) <= CLASSES_NAMED:
        ticks = range(len(counts))
        axis.set_xticks(ticks, result["classes"], rotation=90, fontsize=SMALL_POINTS)
        axis.set_yticks(ticks, result["classes"], fontsize=SMALL_POINTS)


def _draw_speakers(result: dict[str, Any], best: str, axis: Any) -> None:
    """Draw each test speaker's error with the best arm against that with log-mel."""
    own, log_mel = (result["arms"][name]["linear"]["by_speaker"] for name in (best, LOG_MEL))
    pairs = [(100 * log_mel[speaker], 100 * own[speaker]) for speaker in own]
    ends = (min(map(min, pairs)) - 2, max(map(max, pairs)) + 2)
    axis.plot(ends, ends, color="grey", lw=0.8, label="as many errors")
    axis.plot(*zip(*pairs, strict=True), "o", ms=5)
    name = metric_of(result["task"]).name
    axis.set(
        title=f"A point is a test speaker; below the line {_short(best, result['arms'])} errs less",
        xlabel=f"{name}, log-mel, %",
        ylabel=f"{name}, run, %",
    )
    axis.grid(alpha=0.3)


def _short(name: str, names: Iterable[str]) -> str:
    """Name a run by the last part of its path, if no other run ends so."""
    last = name.rsplit("/", 1)[-1]
    return name if sum(other.rsplit("/", 1)[-1] == last for other in names) > 1 else last


def _draw_layers(result: dict[str, Any], axis: Any) -> None:
    metric, ticks = metric_of(result["task"]), list[str]()
    for number, (arm, row) in enumerate(result["arms"].items()):
        colour, name = f"C{number}", _short(arm, result["arms"])
        if row["kind"] == LOG_MEL:
            axis.axhline(100 * row["linear"][metric.key], color=colour, ls="--", label=name)
            continue
        shares = [100 * held["linear"][metric.key] for held in row["layers"].values()]
        ticks = max(ticks, list(row["layers"]), key=len)
        axis.plot(shares, "o-" if row["kind"] == "run" else "s:", ms=4, color=colour, label=name)
    about = "; lower is better"
    if not metric.lower_is_better:
        axis.axhline(100 / len(result["classes"]), color="grey", lw=0.8, label="chance, equal classes")
        axis.set_ylim(0, 100)
        about = ""
    axis.set_xticks(range(len(ticks)), ticks, rotation=30 if len(ticks) > 6 else 0)
    axis.set(
        title=f"{metric.name.capitalize()} by layer: linear probes",
        xlabel="layer",
        ylabel=f"test {metric.name}, %{about}",
    )
    axis.grid(alpha=0.3)
