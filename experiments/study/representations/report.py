"""The report of the study of representations."""

from pathlib import Path
from typing import Any

from experiments.probe.metrics import Metric
from experiments.report.figures import PAGE_INCHES, legend_above, message, picture
from experiments.report.footer import footer
from experiments.report.tables import table
from experiments.report.units import byte_size, percent
from experiments.study.comparison import decided, dots_and_bars, leader, points, sentence
from experiments.study.representations.arms import DILOCO, LABELS, SPLIT
from experiments.study.representations.results import ALL, LOG_MEL, metric_of_study


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    scale, metric = result["scale"], metric_of_study(result)
    better = "; lower is better" if metric.lower_is_better else ""
    sections = [
        f"# What pre-trained encoders know: {result.get('task', 'keywords')} by linear probes",
        "\n".join(
            f"- {sentence(held['one'], held['other'], held['by_seed'][str(ALL)], metric)}"
            for held in result["comparisons"]
        ),
        _design(result),
        f"![{metric.name} by arm](representations.png)",
        f"## {metric.name.capitalize()} by share of the labels{better}",
        table(
            (
                "arm",
                *(f"{share} % of labels" for share in LABELS),
                "audio a second",
                "empty",
                "sent by clients",
            ),
            [_row(held, metric) for held in result["arms"]],
        ),
        f"Brackets hold half of a t interval (95 %) over seeds. Scale {scale['name']}: {scale['rounds']} "
        f"rounds of {scale['local_steps']} steps of {scale['batch_size']} crops a client; without clients, "
        f"{scale['rounds']} stretches of updates of {scale['central_batch_size']} crops."
        + _of_diloco(result),
        f"## Differences{' of error rates: a negative one is better' if better else ''}",
        table(
            ("arm", "against", *(f"{share} % of labels" for share in LABELS), "over test speakers"),
            [
                (
                    held["one"],
                    held["other"],
                    *(points(held["by_seed"][str(share)]) for share in LABELS),
                    points(held["by_speaker"]),
                )
                for held in result["comparisons"]
            ],
        ),
        footer(result["provenance"]),
    ]
    return "\n\n".join(sections) + "\n"


def _of_diloco(result: dict[str, Any]) -> str:
    """Say what rounds of DiLoCo are; empty without it."""
    steps = result["scale"]["local_steps"]
    if steps % SPLIT or not any(row["training"] == DILOCO for row in result["rows"]):
        return ""
    return (
        f" DiLoCo hears the same audio in {SPLIT} times the rounds, with so many times fewer steps in "
        "each, and so sends {SPLIT} times the bytes."
    )


def _design(result: dict[str, Any]) -> str:
    """Say how the scores came about."""
    speakers = {name: held["speakers"] for name, held in result["clips"]["splits"].items()}
    clips, metric = result["clips"]["splits"]["test"]["clips"], metric_of_study(result)
    if metric.lower_is_better:
        how = (
            f"Linear probes of the frozen encoder are trained with CTC on the transcripts of "
            f"{speakers['train']} speakers; the layer is chosen on {speakers['dev']} others. The "
            f"{metric.name} is that on {speakers['test']} more ({clips} clips, an alphabet of "
            f"{result['clips']['characters']} characters)."
        )
    else:
        how = (
            f"Linear probes of the frozen encoder are trained with the words of {speakers['train']} "
            f"speakers; layer and penalty are chosen on {speakers['dev']} others. Accuracy is that on "
            f"{speakers['test']} more ({clips} clips, {result['clips']['classes']} words)."
        )
    models = ", ".join(f"{name} is the preset {preset}" for name, preset in result["models"].items())
    alike = " Random encoders of one shape are one and the same." if len(result["models"]) > 1 else ""
    return (
        f"Encoders: {models}.{alike} Every run hears the same audio ({_audio(result)}) of speakers who are "
        f"not in test. {how} "
        f"Differences are paired by seed ({result['seeds']} in all); the last column's intervals are over "
        f"test speakers. All {len(result['comparisons'])} intervals of a column hold together with 95 % "
        "probability (Bonferroni)."
    )


def _audio(result: dict[str, Any]) -> str:
    found = {round(held["audio_seconds"], -2) for held in result["rows"]}
    return " to ".join(f"{value:,.0f}" for value in sorted({min(found), max(found)})) + " s"


def _row(held: dict[str, Any], metric: Metric) -> tuple[Any, ...]:
    cells = []
    for share in LABELS:
        found = held[metric.key][str(share)]
        half = "" if found["half"] is None or not found["spread"] else f" (± {100 * found['half']:.1f})"
        cells.append(percent(found["mean"], 1) + half)
    if "audio_seconds_a_second" not in held:
        return held["arm"], *cells, None, None, None
    pace, empty = held["audio_seconds_a_second"], held["padded_share"]
    sent = byte_size(held["bytes_up"]) if held["bytes_up"] else None
    return held["arm"], *cells, f"{pace:.0f} s", percent(empty, 1), sent


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw every arm's score with all labels and with few."""
    metric, names = metric_of_study(result), [held["arm"] for held in result["arms"]]
    with picture(path, figsize=(PAGE_INCHES, 2.4 + 0.42 * len(names))) as axis:
        for place, share in enumerate(LABELS):
            found = [held[metric.key][str(share)] for held in result["arms"]]
            axis.errorbar(
                [100 * held["mean"] for held in found],
                [index + 0.16 * (place - 1) for index in range(len(names))],
                xerr=None if result["seeds"] == 1 else [100 * (held["half"] or 0.0) for held in found],
                fmt="o",
                ms=5,
                capsize=3,
                label=f"{share} % of the labels",
            )
        line = next(held for held in result["arms"] if held["arm"] == LOG_MEL)[metric.key][str(ALL)]
        axis.axvline(100 * line["mean"], color="grey", ls=":", label="log-mel, all labels")
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        about = "; lower is better" if metric.lower_is_better else ""
        axis.set(
            xlabel=f"{metric.name} on test speakers, %, linear probe{about}",
            title=f"{result.get('task', 'keywords').capitalize()} from frozen encoders",
        )
        axis.grid(alpha=0.25)
        legend_above([axis], 4)
        message(axis, _caption(result))


def _caption(result: dict[str, Any]) -> str:
    """Say under the picture which arm is best, how many comparisons are decided, and what is drawn."""
    metric = metric_of_study(result)
    means = [{"arm": row["arm"], "mean": row[metric.key][str(ALL)]["mean"]} for row in result["arms"]]
    sure = sum(decided(held["by_seed"][str(ALL)]) for held in result["comparisons"])
    compared = f" The intervals of {sure} of {len(result['comparisons'])} differences leave zero out."
    return (
        f"With all labels {leader(means, LOG_MEL, metric)}{compared * (result['seeds'] > 1)} "
        f"{dots_and_bars(result['seeds'])} All are scored on the "
        f"{result['clips']['splits']['test']['clips']} clips of test."
    )
