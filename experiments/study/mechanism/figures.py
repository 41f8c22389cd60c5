"""mechanism.png: weights, results and correlations by condition and by temperature."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.figures import (
    PAGE_INCHES,
    SMALL_POINTS,
    label_ends,
    legend_above,
    message,
    picture,
)
from experiments.report.statistics import shown_sign
from experiments.study.mechanism.sentences import COMPARISONS, mean_of, rule_label
from experiments.study.mechanism.settings import (
    CLEAN,
    CONDITIONS,
    FEDAVG,
    LOSS_WEIGHTED,
    SPOILT_CLIENTS,
    SWEPT,
    TEMPERATURE,
)

COLOURS = {FEDAVG: "tab:blue", LOSS_WEIGHTED: "tab:orange", CLEAN: "tab:green", "noise": "tab:red"}


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw weights, results and correlations: bars or lines are means, points are seeds."""
    groups = result["groups"]
    with picture(path, 3, 2, figsize=(PAGE_INCHES, 10)) as axes:
        share, loss, accuracy, reward, effective, swept_loss = axes.flat
        for axis, name, title, label in (
            (share, "spoilt_share", f"Weight of the {SPOILT_CLIENTS} spoilt clients", "share of all weight"),
            (loss, "heldout_contrastive", "Held-out loss (lower is better)", "nats per masked frame"),
            (accuracy, "heldout_accuracy", "Held-out accuracy (higher is better)", "share of masked frames"),
        ):
            _by_condition(axis, groups, name)
            axis.set(title=title, ylabel=label)
        _level(share, groups[0]["fair_share"], "fair share")
        share.set_ylim(bottom=0)
        _level(accuracy, mean_of(result["rows"], "chance_accuracy"), "guessing")
        for axis, name, title, label in (
            (effective, "effective_clients", "Effective clients", "1 / sum of squared weights"),
            (swept_loss, "heldout_contrastive", "Held-out loss", "nats per masked frame"),
        ):
            _by_temperature(axis, groups, name)
            axis.set(
                title=f"{title} by temperature",
                ylabel=label,
                xlabel="temperature of the softmax",
                xscale="log",
            )
        effective.set_ylim(bottom=0)
        _rewards(reward, groups)
        for axis in axes.flat:
            axis.grid(alpha=0.25)
        for axis in (effective, swept_loss):
            label_ends(axis)
        legend_above([share])
        shown = sum(
            shown_sign(row["heldout_contrastive"]["by_seed"], COMPARISONS) != 0
            for row in result["comparisons"]
        )
        message(
            share,
            f"{shown} of {len(result['comparisons'])} differences in held-out loss are shown. A dot is one "
            f"of {result['seeds']} seeds; dashes or lines are means, bars one standard deviation of the "
            "seeds. Conditions name how the audio of the spoilt clients was changed. Dashed lines by "
            "temperature: fedavg, which has no temperature.",
        )


def _level(axis: Any, height: float, label: str) -> None:
    """Draw a level line, and name it at its right end."""
    axis.axhline(height, color="black", ls=":", lw=1)
    axis.annotate(
        label, (1, height), xycoords=axis.get_yaxis_transform(), xytext=(-2, 2), textcoords="offset points",
        ha="right", fontsize=SMALL_POINTS,
    )  # fmt: skip


def _by_condition(axis: Any, groups: Sequence[dict[str, Any]], name: str) -> None:
    """Draw both rules side by side for each condition."""
    for offset, rule in ((-0.15, FEDAVG), (0.15, LOSS_WEIGHTED)):
        shown = [
            group
            for condition in CONDITIONS
            for group in groups
            if group["condition"] == condition and group["rule"] == rule
            and group["temperature"] in (None, TEMPERATURE)
        ]  # fmt: skip
        at = [CONDITIONS.index(group["condition"]) + offset for group in shown]
        _points(axis, at, [group[name] for group in shown], COLOURS[rule], rule_label(shown[0]))
    axis.set_xticks(range(len(CONDITIONS)), CONDITIONS)


def _points(
    axis: Any, at: Sequence[float], values: Sequence[dict[str, Any]], colour: str, label: str
) -> None:
    """Draw a dash at each mean, its standard deviation if there is one, and a point for each seed."""
    means = [_number(value["mean"]) for value in values]
    errors = [value["spread"] or 0.0 for value in values]
    axis.errorbar(at, means, errors, fmt="_", ms=18, mew=2, capsize=4, color=colour, label=label)
    for x, value in zip(at, values, strict=True):
        seeds = [_number(seed) for seed in value["by_seed"]]
        places = x + np.linspace(-0.05, 0.05, len(seeds)) if len(seeds) > 1 else [x]
        axis.plot(places, seeds, "o", ms=4, alpha=0.6, color=colour)


def _by_temperature(axis: Any, groups: Sequence[dict[str, Any]], name: str) -> None:
    """Draw loss-weighted averaging over temperatures, and fedavg as a level line."""
    for condition in SWEPT:
        colour = COLOURS[condition]
        swept = [g for g in groups if g["condition"] == condition and g["rule"] == LOSS_WEIGHTED]
        swept.sort(key=lambda group: group["temperature"])
        at = [group["temperature"] for group in swept]
        means = [_number(group[name]["mean"]) for group in swept]
        errors = [group[name]["spread"] or 0.0 for group in swept]
        axis.errorbar(at, means, errors, fmt="o-", capsize=4, color=colour, label=f"{condition}, weighted")
        for group in swept:
            seeds = [_number(seed) for seed in group[name]["by_seed"]]
            axis.plot([group["temperature"]] * len(seeds), seeds, "o", ms=3, alpha=0.5, color=colour)
        level = next(g for g in groups if g["condition"] == condition and g["rule"] == FEDAVG)
        axis.axhline(
            _number(level[name]["mean"]), color=colour, ls="--", lw=1, label=f"{condition}, {FEDAVG}"
        )


def _rewards(axis: Any, groups: Sequence[dict[str, Any]]) -> None:
    """Draw rank correlations of the loss-weighted weight with the easy and with the good."""
    shown = [
        next(g for g in groups if g["condition"] == condition and g["temperature"] == TEMPERATURE)
        for condition in CONDITIONS
    ]
    for offset, name, colour, label in (
        (-0.15, "weight_with_easy", "tab:purple", "with the easy (low own loss)"),
        (0.15, "weight_with_good", "tab:olive", "with the good (gain held out)"),
    ):
        at = [place + offset for place in range(len(shown))]
        _points(axis, at, [group[name] for group in shown], colour, label)
    axis.axhline(0, color="black", lw=0.8)
    axis.set_xticks(range(len(CONDITIONS)), CONDITIONS)
    axis.set(title=f"Weight's rank correlation, T = {TEMPERATURE:g}", ylabel="Spearman, within rounds")
    axis.set_ylim(-1.05, 1.05)
    axis.legend(fontsize=SMALL_POINTS, loc="lower left")


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
