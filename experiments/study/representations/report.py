"""The report of the study of representations."""

from pathlib import Path
from typing import Any

from experiments.report.figures import picture
from experiments.report.footer import footer
from experiments.report.tables import table
from experiments.report.units import byte_size, percent
from experiments.study.representations.arms import LABELS
from experiments.study.representations.results import ALL, LOG_MEL


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    scale = result["scale"]
    sections = [
        "# What pre-trained encoders know: keywords by linear probes",
        "\n".join(f"- {sentence(held)}" for held in result["comparisons"]),
        _design(result),
        "![accuracy by arm](representations.png)",
        "## Accuracy by share of the labels",
        table(
            ("arm", *(f"{share} % of labels" for share in LABELS), "audio a second", "empty", "sent"),
            [_row(held) for held in result["arms"]],
        ),
        f"Brackets hold half of a t interval (95 %) over seeds. Scale {scale['name']}: {scale['rounds']} "
        f"rounds of {scale['local_steps']} steps of {scale['batch_size']} crops a client; without clients, "
        f"{scale['rounds']} stretches of updates of {scale['central_batch_size']} crops.",
        "## Differences",
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


def _design(result: dict[str, Any]) -> str:
    """Say how the accuracies came about."""
    speakers = {name: held["speakers"] for name, held in result["clips"]["splits"].items()}
    clips, words = result["clips"]["splits"]["test"]["clips"], result["clips"]["classes"]
    return (
        f"Every run hears the same audio ({_audio(result)}) of speakers who are not in test. Linear probes "
        f"of the frozen encoder are trained with the words of {speakers['train']} speakers; layer and "
        f"penalty are chosen on {speakers['dev']} others. Accuracy is that on {speakers['test']} more "
        f"({clips} clips, {words} words). Differences are paired by seed ({result['seeds']} seeds); the last "
        f"column's intervals are over test speakers. All {len(result['comparisons'])} "
        f"intervals of a column hold together with 95 % probability (Bonferroni)."
    )


def points(found: dict[str, Any]) -> str:
    """Format a difference in percentage points with its interval."""
    if found["half"] is None:
        return f"{100 * found['mean']:+.1f}"
    return f"{100 * found['mean']:+.1f} ± {100 * found['half']:.1f}"


def sentence(held: dict[str, Any]) -> str:
    """Say what a comparison shows with all labels."""
    found = held["by_seed"][str(ALL)]
    told = f"{points(found)} points"
    if found["half"] is None:
        return f"{held['one']} against {held['other']}: {told}, one seed alone."
    if abs(found["mean"]) <= found["half"]:
        return f"{held['one']} against {held['other']}: undecided ({told})."
    return f"{held['one']} is {'better' if found['mean'] > 0 else 'WORSE'} than {held['other']}: {told}."


def _audio(result: dict[str, Any]) -> str:
    found = {round(held["audio_seconds"], -2) for held in result["rows"]}
    return " to ".join(f"{value:,.0f}" for value in sorted({min(found), max(found)})) + " s"


def _row(held: dict[str, Any]) -> tuple[Any, ...]:
    cells = []
    for share in LABELS:
        found = held["accuracy"][str(share)]
        half = "" if found["half"] is None or not found["spread"] else f" (± {100 * found['half']:.1f})"
        cells.append(percent(found["mean"], 1) + half)
    if "audio_seconds_a_second" not in held:
        return held["arm"], *cells, None, None, None
    pace, empty = held["audio_seconds_a_second"], held["padded_share"]
    sent = byte_size(held["bytes_up"]) if held["bytes_up"] else None
    return held["arm"], *cells, f"{pace:.0f} s", percent(empty, 1), sent


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw every arm's accuracy with all labels and with few."""
    names = [held["arm"] for held in result["arms"]]
    with picture(path, 1, 1, figsize=(9, 1.5 + 0.42 * len(names))) as axis:
        for place, share in enumerate(LABELS):
            found = [held["accuracy"][str(share)] for held in result["arms"]]
            axis.errorbar(
                [100 * held["mean"] for held in found],
                [index + 0.16 * (place - 1) for index in range(len(names))],
                xerr=[100 * (held["half"] or 0.0) for held in found],
                fmt="o",
                ms=5,
                capsize=3,
                label=f"{share} % of the labels",
            )
        line = next(held for held in result["arms"] if held["arm"] == LOG_MEL)["accuracy"][str(ALL)]["mean"]
        axis.axvline(100 * line, color="grey", ls=":", label="log-mel, all labels")
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set(xlabel="accuracy on test speakers, %, linear probe", title="Keywords from frozen encoders")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
