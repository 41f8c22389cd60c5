"""Scores of probes by arm and seed, and the differences between arms."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.probe.metrics import ACCURACY, Metric, metric_of
from experiments.report.statistics import interval, over_seeds
from experiments.study.comparison import by_speaker, paired
from experiments.study.representations.arms import (
    BEST_RQ,
    CENTRALISED,
    LABELS,
    TRAININGS,
    WAV2VEC2,
    WAVEFORM,
    Arm,
)

LOG_MEL = "log-mel"
ALL = 100


def scores(probed: dict[str, Any], metric: Metric = ACCURACY) -> dict[str, Any]:
    """Read an arm of a probe: test score by percentage of the labels, layer, and score by test speaker."""
    few = {round(100 * held["share"]): held[metric.key] for held in probed["budgets"]}
    return {
        metric.key: {str(share): few.get(share, probed["linear"][metric.key]) for share in LABELS},
        "layer": probed["linear"]["layer"],
        "by_speaker": probed["linear"]["by_speaker"],
    }


def row(arm: Arm, seed: int, run: Path, found: dict[str, Any], metric: Metric = ACCURACY) -> dict[str, Any]:
    """Read the row of one arm and seed, from the probe of that seed."""
    return {
        "arm": arm.name,
        "encoder": arm.encoder,
        "training": arm.training,
        "seed": seed,
        **scores(found["arms"][str(run)], metric),
    }


def baselines(
    arms: Sequence[Arm],
    runs: Sequence[dict[Arm, Path]],
    found: Sequence[dict[str, Any]],
    metric: Metric = ACCURACY,
) -> list[dict[str, Any]]:
    """Read log-mel, and each encoder's random encoder, for every seed.

    Args:
        arms: of the study.
        runs: by seed, the folder of each arm.
        found: by seed, the result of the probe.
        metric: of the study's task.
    """
    rows = []
    for seed, held in enumerate(found):
        read = scores(held["arms"][LOG_MEL], metric)
        rows.append({"arm": LOG_MEL, "encoder": None, "seed": seed, **read})
        for encoder in dict.fromkeys(arm.encoder for arm in arms):
            first = next(arm for arm in arms if arm.encoder == encoder)
            random = held["arms"][held["arms"][str(runs[seed][first])]["random"]]
            read = scores(random, metric)
            rows.append({"arm": random_name(encoder), "encoder": encoder, "seed": seed, **read})
    return rows


def metric_of_study(result: dict[str, Any]) -> Metric:
    """Find the score of a study; older results are of keywords and do not say so."""
    return metric_of(result.get("task", "keywords"))


def random_name(encoder: str) -> str:
    """Name the arm of an untrained encoder."""
    return f"{encoder}, random"


def by_seed(result: dict[str, Any], arm: str, share: int) -> list[float]:
    """Collect an arm's scores in the order of seeds."""
    key = metric_of_study(result).key
    rows = [held for held in result["rows"] + result["baselines"] if held["arm"] == arm]
    return [held[key][str(share)] for held in sorted(rows, key=lambda held: held["seed"])]


def summaries(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Summarise every arm over its seeds: mean, spread and half a t interval of each score."""
    key = metric_of_study(result).key
    names = dict.fromkeys(held["arm"] for held in result["baselines"] + result["rows"])
    found = []
    for name in names:
        rows = [held for held in result["rows"] if held["arm"] == name]
        by_share = {
            str(share): over_seeds(values := by_seed(result, name, share)) | {"half": interval(values)}
            for share in LABELS
        }
        means = {
            column: over_seeds([held[column] for held in rows])["mean"]
            for column in ("audio_seconds", "audio_seconds_a_second", "padded_share", "bytes_up")
        }
        found.append({"arm": name, key: by_share, **(means if rows else {})})
    return found


def pairs(result: dict[str, Any]) -> list[tuple[str, str]]:
    """List the comparisons: with log-mel, the random and the centralised encoder, FedAvg, another encoder."""
    arms = list(dict.fromkeys((held["encoder"], held["training"]) for held in result["rows"]))
    found = []
    for encoder, training in arms:
        name = Arm(encoder=encoder, training=training).name
        found += [(name, LOG_MEL), (name, random_name(encoder))]
        if training != CENTRALISED and (encoder, CENTRALISED) in arms:
            found.append((name, Arm(encoder=encoder, training=CENTRALISED).name))
        if training in TRAININGS[2:] and (encoder, TRAININGS[1]) in arms:
            found.append((name, Arm(encoder=encoder, training=TRAININGS[1]).name))
        for one, other in ((BEST_RQ, WAV2VEC2), (WAV2VEC2, WAVEFORM)):
            if encoder == one and (other, training) in arms:
                found.append((name, Arm(encoder=other, training=training).name))
    return found


def comparisons(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Compute paired differences of the score, seed by seed and test speaker by test speaker.

    Intervals are corrected for the number of comparisons (Bonferroni).

    Returns:
        For each pair: `by_seed` a share of the labels (mean and half of the t interval over seeds), and
        `by_speaker` (all labels; seeds are averaged first, so that the interval is over test speakers).
    """
    found, count = [], len(pairs(result))
    speakers: dict[str, list[dict[str, float]]] = {}
    for held in result["rows"] + result["baselines"]:
        speakers.setdefault(held["arm"], []).append(held["by_speaker"])
    for one, other in pairs(result):
        differences = {
            str(share): paired(by_seed(result, one, share), by_seed(result, other, share), count)
            for share in LABELS
        }
        over_speakers = by_speaker(speakers[one], speakers[other], count)
        found.append({"one": one, "other": other, "by_seed": differences, "by_speaker": over_speakers})
    return found
