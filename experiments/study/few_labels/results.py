"""Accuracies of fine-tuned keyword models by arm and seed, and the differences between arms."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.statistics import interval, over_seeds
from experiments.study.comparison import by_speaker, paired
from experiments.study.few_labels.arms import Arm, pairs


def collect(
    chosen: Sequence[Arm], found: Mapping[tuple[Arm, int], tuple[dict[str, Any], dict[str, Any]]]
) -> dict[str, Any]:
    """Collect the accuracies on test and compare the arms.

    Args:
        chosen: arms, in the order of the report.
        found: by arm and seed, the `results.json` and the `data.json` of a run.

    Returns:
        rows, one for each run; arms, each summarised over its seeds; comparisons, paired by seed and by test
        speaker, with intervals that hold together (Bonferroni); clips by split.
    """
    rows = [
        {
            "arm": arm.name,
            "seed": seed,
            "accuracy": held["test"]["accuracy"],
            "by_speaker": {row["speaker"]: row["accuracy"] for row in held["per_speaker"]},
            "updates": held["updates"],
            "best_update": held["best_update"],
            "train_seconds": held["train_seconds"],
        }
        for (arm, seed), (held, _) in found.items()
    ]
    by_arm = {arm.name: [row for row in rows if row["arm"] == arm.name] for arm in chosen}
    accuracy = {name: [row["accuracy"] for row in held] for name, held in by_arm.items()}
    speakers = {name: [row["by_speaker"] for row in held] for name, held in by_arm.items()}
    count = len(pairs(chosen))
    _, data = next(iter(found.values()))
    return {
        "rows": rows,
        "arms": [
            {"arm": name, "accuracy": over_seeds(values) | {"half": interval(values)}}
            for name, values in accuracy.items()
        ],
        "comparisons": [
            {
                "one": one,
                "other": other,
                "by_seed": paired(accuracy[one], accuracy[other], count),
                "by_speaker": by_speaker(speakers[one], speakers[other], count),
            }
            for one, other in pairs(chosen)
        ],
        "clips": {split: data[split]["clips"] for split in ("train", "dev", "test")},
    }
