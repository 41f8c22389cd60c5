"""Sentences of mechanism.md: each is worked out from the numbers of mechanism.json."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.report.statistics import minus, shown_sign, signed
from experiments.study.curves import NO_DIFFERENCE, judgement
from experiments.study.mechanism.settings import (
    CLEAN,
    CONDITIONS,
    FEDAVG,
    LOSS_WEIGHTED,
    SPOILT_CLIENTS,
    SWEPT,
    TEMPERATURE,
    Setting,
    count_where,
    settings,
)

# Judged together: the weight of spoilt clients in three conditions, the loss of every loss-weighted setting
# against fedavg, and three correlations (easy, good, their difference) in each condition.
COMPARISONS = (
    len(CONDITIONS) - 1 + sum(setting.rule == LOSS_WEIGHTED for setting in settings()) + 3 * len(CONDITIONS)
)


def sentences(result: dict[str, Any]) -> list[str]:
    """Say what the numbers show, one line a question."""
    groups = {(group["condition"], rule_label(group)): group for group in result["groups"]}
    weighted = rule_label({"rule": LOSS_WEIGHTED, "temperature": TEMPERATURE})
    clean = groups[CLEAN, weighted]
    spoilt = [condition for condition in CONDITIONS if condition != CLEAN]
    return [
        judgement(result["seeds"], COMPARISONS),
        *(_share_sentence(condition, groups[condition, weighted], clean) for condition in spoilt),
        _concentration_sentence(result["groups"]),
        *(_result_sentence(row) for row in result["comparisons"] if row["against"] == FEDAVG),
        *(_reward_sentence(condition, groups[condition, weighted]) for condition in CONDITIONS),
    ]


def _share_sentence(condition: str, spoilt: dict[str, Any], clean: dict[str, Any]) -> str:
    share, fair = spoilt["spoilt_share"], spoilt["fair_share"]
    verdict = consistency([minus(value, fair) for value in share["by_seed"]], "less", "more")
    return (
        f"**{condition}**, {rule_label(spoilt)}: spoilt clients had {share['mean']:.3f} of the weight, "
        f"{share['mean'] / fair:.2f} times their fair {fair:.3f} ({verdict}); the same clients unspoilt had "
        f"{clean['spoilt_share']['mean']:.3f}."
    )


def _concentration_sentence(groups: Sequence[dict[str, Any]]) -> str:
    parts = []
    for condition in SWEPT:
        swept = [g for g in groups if g["condition"] == condition and g["rule"] == LOSS_WEIGHTED]
        values = ", ".join(
            f"{group['effective_clients']['mean']:.2f} at T = {group['temperature']:g}"
            for group in sorted(swept, key=lambda group: group["temperature"])
        )
        parts.append(f"{values} ({condition})")
    return f"Effective clients of {round(SPOILT_CLIENTS / groups[0]['fair_share'])}: {'; '.join(parts)}."


def _result_sentence(row: dict[str, Any]) -> str:
    difference = row["heldout_contrastive"]
    return (
        f"**{row['condition']}**, {rule_label(row)} against fedavg: held-out loss {signed(difference, 4)} "
        f"nats ({consistency(difference['by_seed'], 'lower', 'higher')}), codes in use "
        f"{signed(row['heldout_code_perplexity'], 1)}."
    )


def _reward_sentence(condition: str, group: dict[str, Any]) -> str:
    """Say whether weights went with the easy or with the good, by the sign of good - easy in each seed."""
    good, easy = group["weight_with_good_given_codes"], group["weight_with_easy_given_codes"]
    if good["mean"] is None or easy["mean"] is None:
        return f"**{condition}**: weights or gains had no order to compare."
    good_less_easy = [minus(one, other) for one, other in zip(good["by_seed"], easy["by_seed"], strict=True)]
    signs = [
        f"{word} {signed(value, 2)} ({consistency(value['by_seed'], 'negative', 'positive')})"
        for word, value in (("with the easy", easy), ("with the good", good))
    ]
    verdict = consistency(good_less_easy, "more with the easy", "more with the good")
    return (
        f"**{condition}**, {rule_label(group)}, given codes: weights went {' and '.join(signs)}. "
        f"Seed by seed they went {verdict}."
    )


def consistency(by_seed: Sequence[float | None], below: str, above: str) -> str:
    """Count the seeds with either sign, and say which sign is shown.

    Args:
        by_seed: a difference in each seed.
        below, above: words for a negative and for a positive difference.

    Returns:
        Such as "lower in 1, higher in 2 of 3 seeds: no difference shown".
    """
    lower, number = count_where(lambda value: value < 0, by_seed)
    higher, _ = count_where(lambda value: value > 0, by_seed)
    if not number:
        return "without a value"
    words = {-1: f"shown to be {below}", 0: NO_DIFFERENCE, 1: f"shown to be {above}"}
    shown = words[shown_sign(by_seed, COMPARISONS)]
    return (
        f"{below} in {lower}, {above} in {higher} of {number} {'seed' if number == 1 else 'seeds'}: {shown}"
    )


def rule_label(row: dict[str, Any]) -> str:
    """Write the aggregation rule of a row for readers, with its temperature."""
    return Setting(condition="", rule=row["rule"], temperature=row["temperature"]).rule_label


def mean_of(rows: Sequence[dict[str, Any]], name: str) -> float:
    """Average a value over rows."""
    return float(np.mean([row[name] for row in rows]))
