"""The report of the study of few labels."""

from pathlib import Path
from typing import Any

from experiments.report.figures import PAGE_INCHES, message, picture
from experiments.report.footer import footer
from experiments.report.tables import table
from experiments.report.units import percent
from experiments.study.comparison import dots_and_bars, leader, points, sentence
from experiments.study.few_labels.arms import LOG_MEL


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    clips, held = result["clips"], result["comparisons"]
    sections = [
        f"# Keywords fine-tuned with {result['labels']:g} % of the labels",
        "\n".join(f"- {sentence(row['one'], row['other'], row['by_seed'])}" for row in held),
        f"Every keyword model is fine-tuned with the same {clips['train']} labelled clips of a seed; its "
        f"best checkpoint is chosen on {clips['dev']} clips of other speakers. Accuracy is that on "
        f"{clips['test']} clips of more speakers. Pre-training heard {result['audio_seconds']:,.0f} s, "
        f"without labels. Differences are paired by seed ({_seeds(result['seeds'])}); intervals of the last "
        f"column are over test speakers. All {len(held)} intervals of a column hold together with 95 % "
        "probability (Bonferroni).",
        "![accuracy by arm](few-labels.png)",
        table(
            ("model", "accuracy on test", "by seed"),
            [
                (
                    row["arm"],
                    _accuracy(row["accuracy"]),
                    ", ".join(percent(value, 1) for value in row["accuracy"]["by_seed"]),
                )
                for row in result["arms"]
            ],
        ),
        *(["Brackets hold half of a t interval (95 %) over seeds."] if result["seeds"] > 1 else []),
        "## Differences",
        table(
            ("model", "against", "points over seeds", "over test speakers"),
            [(row["one"], row["other"], points(row["by_seed"]), points(row["by_speaker"])) for row in held],
        ),
        footer(result["provenance"]),
    ]
    return "\n\n".join(sections) + "\n"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def _accuracy(found: dict[str, Any]) -> str:
    half = "" if found["half"] is None else f" (± {100 * found['half']:.1f})"
    return percent(found["mean"], 1) + half


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw every arm's accuracy: a point a seed, and the mean with its t interval."""
    rows, seeds = result["arms"], result["seeds"]
    with picture(path, figsize=(PAGE_INCHES, 2.2 + 0.42 * len(rows))) as axis:
        for index, row in enumerate(rows):
            found = row["accuracy"]
            if seeds > 1:
                values = [100 * value for value in found["by_seed"]]
                axis.plot(values, [index] * len(values), "o", ms=4, color="grey", alpha=0.5)
            half = None if found["half"] is None else 100 * found["half"]
            axis.errorbar(100 * found["mean"], index, xerr=half, fmt="o", ms=6, capsize=4, color="C0")
        axis.set_yticks(range(len(rows)), [row["arm"] for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set(
            xlabel="accuracy on test speakers, %",
            title=f"Keywords, fine-tuned with {result['labels']:g} % of the labels",
        )
        axis.grid(alpha=0.25)
        means = [{"arm": row["arm"], "mean": row["accuracy"]["mean"]} for row in rows]
        grey = " A grey dot is one seed." if seeds > 1 else ""
        message(
            axis,
            f"{leader(means, LOG_MEL)} {dots_and_bars(seeds)}{grey} Every model has the same "
            f"{result['clips']['train']} labelled clips of a seed and is scored on {result['clips']['test']} "
            "clips of test.",
        )
