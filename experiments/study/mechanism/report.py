"""mechanism.md and mechanism.png: every sentence is worked out from the numbers beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.tables import table
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
)

COLOURS = {FEDAVG: "tab:blue", LOSS_WEIGHTED: "tab:orange", CLEAN: "tab:green", "noise": "tab:red"}


def markdown(result: dict[str, Any]) -> str:
    """What readers see."""
    groups, scale = result["groups"], result["scale"]
    data = (
        f"`{'/'.join(Path(result['data']).parts[-2:])}`"
        if result["data"]
        else "the built-in synthetic corpus (generated, not speech)"
    )
    updates = scale["rounds"] * scale["local_steps"]
    seeds = result["seeds"]
    parts = [
        "# What loss-weighted averaging rewards",
        f"Ten clients pre-train `tiny` for {scale['rounds']} rounds of {scale['local_steps']} updates on "
        f"{data}, {seeds} {'seed' if seeds == 1 else 'seeds'} of each setting. In all conditions but "
        f"`{CLEAN}` the training audio of {SPOILT_CLIENTS} clients is spoilt; held-out audio never is. "
        "± is the standard deviation over seeds"
        + (", of which one seed has none." if seeds == 1 else f" (n = {seeds})."),
        f"{updates} updates are a short run: differences between rules here are those of early training.",
        "![figure](mechanism.png)",
        "## What the numbers say",
        "\n".join(f"- {sentence}" for sentence in sentences(result)),
        "## Weights and results",
        table(
            ("condition", "rule", "spoilt share", "effective clients", "held-out loss", "accuracy", "codes"),
            [
                (
                    group["condition"],
                    _rule(group),
                    *(_cell(group[name], digits) for name, digits in (
                        ("spoilt_share", 3), ("effective_clients", 2), ("heldout_contrastive", 4),
                        ("heldout_accuracy", 4), ("heldout_code_perplexity", 1),
                    )),
                )
                for group in groups
            ],
        ),
        f"The fair share is {groups[0]['fair_share']:.3f}; under `{CLEAN}` the share is that of the same "
        "clients, unspoilt. Shares and effective clients (1 / sum of squared weights) are means over all "
        f"rounds. Guessing would score {_mean_of(result['rows'], 'chance_accuracy'):.4f}, and the untrained "
        f"models' loss was {_mean_of(result['rows'], 'untrained_contrastive'):.4f}.",
        "## Differences, seed by seed",
        table(
            ("condition", "rule", "minus", "held-out loss", "lower in", "accuracy", "higher in"),
            [
                (
                    row["condition"],
                    _rule(row),
                    row["against"],
                    _cell(row["heldout_contrastive"], 4, sign=True),
                    _seeds(row["heldout_contrastive"], lambda value: value < 0),
                    _cell(row["heldout_accuracy"], 4, sign=True),
                    _seeds(row["heldout_accuracy"], lambda value: value > 0),
                )
                for row in result["comparisons"]
            ],
        ),
        f"`minus {FEDAVG}`: the same condition under {FEDAVG}. `minus {CLEAN}`: the same rule without "
        "spoilt audio.",
        "## Good or merely easy",
        "Spearman's rank correlation between clients, within a diagnosed round, averaged over rounds. "
        "*Good*: by how much a client's local model lowers the loss on held-out clips below that of the "
        "global model that it started from. *Easy*: how low that global model's loss already is on the "
        "client's own training clips, as it hears them. `clean clients` leaves the spoilt ones out. A contrastive loss "
        "is lower where fewer codes are in use (the last column: its correlation with them over local models), so that "
        "*good* rewards collapse too: `given codes` are partial correlations that take the codes out.",
        table(
            ("condition", "rule", "weight, good", "weight, easy", "easy, good", "weight, good: clean clients",
             "weight, easy: clean clients", "weight, good given codes", "weight, easy given codes",
             "held-out loss, codes"),
            [
                (
                    group["condition"],
                    _rule(group),
                    *(_cell(group[name], 2, sign=True) for name in (
                        "weight_with_good", "weight_with_easy", "easy_with_good",
                        "weight_with_good_clean_clients", "weight_with_easy_clean_clients",
                        "weight_with_good_given_codes", "weight_with_easy_given_codes",
                        "heldout_loss_with_codes",
                    )),
                )
                for group in groups
            ],
        ),
        "Under fedavg weights are seconds of audio: its rows show what such correlations are when losses "
        "play no part.",
        _made(result),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def sentences(result: dict[str, Any]) -> list[str]:
    """What the numbers say, one line a question."""
    groups = {(group["condition"], _rule(group)): group for group in result["groups"]}
    weighted = _rule({"rule": LOSS_WEIGHTED, "temperature": TEMPERATURE})
    found = []
    for condition in CONDITIONS:
        if condition != CLEAN:
            found.append(_share_sentence(condition, groups[condition, weighted], groups[CLEAN, weighted]))
    found.append(_concentration_sentence(result["groups"]))
    for row in result["comparisons"]:
        if row["against"] == FEDAVG:
            found.append(_result_sentence(row))
    for condition in CONDITIONS:
        found.append(_reward_sentence(condition, groups[condition, weighted]))
    return found


def _share_sentence(condition: str, spoilt: dict[str, Any], clean: dict[str, Any]) -> str:
    share, fair = spoilt["spoilt_share"], spoilt["fair_share"]
    below, number = count_where(lambda value: value < fair, share["by_seed"])
    word = "less than" if share["mean"] < fair else "more than" if share["mean"] > fair else "just"
    held = below if share["mean"] < fair else number - below
    return (
        f"**{condition}**, {_rule(spoilt)}: spoilt clients had {share['mean']:.3f} of the weight, {word} "
        f"their fair {fair:.3f} ({share['mean'] / fair:.2f} times; {_of(held, number)}); the same clients "
        f"unspoilt had {clean['spoilt_share']['mean']:.3f}."
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
        f"**{row['condition']}**, {_rule(row)} against fedavg: held-out loss "
        f"{_cell(difference, 4, sign=True)} nats, {consistency(difference['by_seed'], 'lower', 'higher')}, with codes in use "
        f"{_cell(row['heldout_code_perplexity'], 1, sign=True)}."
    )


def _reward_sentence(condition: str, group: dict[str, Any]) -> str:
    """Whether weights went with the easy or with the good, by the sign of easy - good in each seed."""
    good, easy = group["weight_with_good_given_codes"], group["weight_with_easy_given_codes"]
    if good["mean"] is None or easy["mean"] is None:
        return f"**{condition}**: weights or gains had no order to compare."
    good_less_easy = [
        None if one is None or other is None else one - other
        for one, other in zip(good["by_seed"], easy["by_seed"], strict=True)
    ]
    more = "more with the easy than with the good", "more with the good than with the easy"
    signs = [
        f"{word} {_cell(value, 2, sign=True)} ({consistency(value['by_seed'], 'negative', 'positive')})"
        for word, value in (("with the easy", easy), ("with the good", good))
    ]
    verdict = consistency(good_less_easy, *more)
    return f"**{condition}**, {_rule(group)}, given codes: weights went {' and '.join(signs)}; {verdict}."


def consistency(by_seed: Sequence[float | None], below: str, above: str) -> str:
    """Whether differences have one sign: "lower in all 3 seeds", or "of no one sign: lower in 1 of 3"."""
    lower, number = count_where(lambda value: value < 0, by_seed)
    higher, _ = count_where(lambda value: value > 0, by_seed)
    if not number:
        return "without a value"
    for word, count in ((below, lower), (above, higher)):
        if count == number:
            return f"{word} in {'the one seed' if number == 1 else f'all {number} seeds'}"
    return f"of no one sign: {below} in {lower}, {above} in {higher} of {number} seeds"


def _of(count: int, number: int) -> str:
    return f"in {count} of {number} {'seed' if number == 1 else 'seeds'}"


def _seeds(value: dict[str, Any], holds: Callable[[float], bool]) -> str:
    count, number = count_where(holds, value["by_seed"])
    return f"{count} of {number}"


def _rule(row: dict[str, Any]) -> str:
    return Setting(condition="", rule=row["rule"], temperature=row["temperature"]).rule_label


def _cell(value: dict[str, Any], digits: int, *, sign: bool = False) -> str:
    """mean ± spread."""
    if value["mean"] is None:
        return "-"
    mean = f"{value['mean']:{'+' if sign else ''}.{digits}f}"
    return mean if value["spread"] is None else f"{mean} ± {value['spread']:.{digits}f}"


def _mean_of(rows: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _made(result: dict[str, Any]) -> str:
    provenance = result["provenance"]
    known = [row["seconds"] for row in result["rows"] if row["seconds"] is not None]
    versions = ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())
    return (
        f"`{provenance['command']}`, commit {provenance['commit']} (cells: "
        f"{', '.join(provenance['cell_commits'])}), {provenance['device']}, {provenance['cores']} cores, "
        f"{sum(known) / 60:.0f} min for {len(known)} cells, {versions}, flags `{provenance['xla_flags']}`"
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """Weights, results and correlations as PNG: bars or lines are means, points are seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = result["groups"]
    figure, axes = plt.subplots(2, 3, figsize=(16, 8.5), layout="constrained")
    share, effective, swept_loss, loss, accuracy, reward = axes.flat
    for axis, name, title, label in (
        (share, "spoilt_share", f"Weight of the {SPOILT_CLIENTS} spoilt clients", "share"),
        (loss, "heldout_contrastive", "Held-out loss (lower is better)", "nats per masked frame"),
        (accuracy, "heldout_accuracy", "Held-out accuracy (higher is better)", "share of masked frames"),
    ):
        _by_condition(axis, groups, name)
        axis.set(title=title, ylabel=label)
    share.axhline(groups[0]["fair_share"], color="black", ls="--", lw=1, label="fair share")
    share.set_ylim(bottom=0)
    accuracy.axhline(
        _mean_of(result["rows"], "chance_accuracy"), color="black", ls=":", lw=1, label="guessing"
    )
    for axis, name, title, label in (
        (effective, "effective_clients", "Effective clients by temperature", "1 / sum of squared weights"),
        (swept_loss, "heldout_contrastive", "Held-out loss by temperature", "nats per masked frame"),
    ):
        _by_temperature(axis, groups, name)
        axis.set(title=title, ylabel=label, xlabel="temperature of the softmax", xscale="log")
    effective.set_ylim(bottom=0)
    _rewards(reward, groups)
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _by_condition(axis: Any, groups: Sequence[dict[str, Any]], name: str) -> None:
    """Both rules side by side for each condition."""
    for offset, rule in ((-0.15, FEDAVG), (0.15, LOSS_WEIGHTED)):
        shown = [
            group
            for condition in CONDITIONS
            for group in groups
            if group["condition"] == condition and group["rule"] == rule
            and group["temperature"] in (None, TEMPERATURE)
        ]  # fmt: skip
        at = [CONDITIONS.index(group["condition"]) + offset for group in shown]
        _points(axis, at, [group[name] for group in shown], COLOURS[rule], _rule(shown[0]))
    axis.set_xticks(range(len(CONDITIONS)), CONDITIONS)


def _points(
    axis: Any, at: Sequence[float], values: Sequence[dict[str, Any]], colour: str, label: str
) -> None:
    """A dash for each mean, with the standard deviation where there is one, and a point a seed."""
    means = [_number(value["mean"]) for value in values]
    errors = [value["spread"] or 0.0 for value in values]
    axis.errorbar(at, means, errors, fmt="_", ms=18, mew=2, capsize=4, color=colour, label=label)
    for x, value in zip(at, values, strict=True):
        seeds = [_number(seed) for seed in value["by_seed"]]
        places = x + np.linspace(-0.05, 0.05, len(seeds)) if len(seeds) > 1 else [x]
        axis.plot(places, seeds, "o", ms=4, alpha=0.6, color=colour)


def _by_temperature(axis: Any, groups: Sequence[dict[str, Any]], name: str) -> None:
    """Loss-weighted over temperatures, fedavg as a level line."""
    for condition in SWEPT:
        colour = COLOURS[condition]
        swept = [g for g in groups if g["condition"] == condition and g["rule"] == LOSS_WEIGHTED]
        swept.sort(key=lambda group: group["temperature"])
        at = [group["temperature"] for group in swept]
        means = [_number(group[name]["mean"]) for group in swept]
        errors = [group[name]["spread"] or 0.0 for group in swept]
        axis.errorbar(
            at, means, errors, fmt="o-", capsize=4, color=colour, label=f"{condition}, {LOSS_WEIGHTED}"
        )
        for group in swept:
            seeds = [_number(seed) for seed in group[name]["by_seed"]]
            axis.plot([group["temperature"]] * len(seeds), seeds, "o", ms=3, alpha=0.5, color=colour)
        level = next(g for g in groups if g["condition"] == condition and g["rule"] == FEDAVG)
        axis.axhline(
            _number(level[name]["mean"]), color=colour, ls="--", lw=1, label=f"{condition}, {FEDAVG}"
        )


def _rewards(axis: Any, groups: Sequence[dict[str, Any]]) -> None:
    """Rank correlations of the weight with the easy and with the good, loss-weighted."""
    shown = [
        next(g for g in groups if g["condition"] == condition and g["temperature"] == TEMPERATURE)
        for condition in CONDITIONS
    ]
    for offset, name, colour, label in (
        (-0.15, "weight_with_easy", "tab:purple", "with the easy: low loss on own data before the round"),
        (0.15, "weight_with_good", "tab:olive", "with the good: gain on held-out speech"),
    ):
        at = [place + offset for place in range(len(shown))]
        _points(axis, at, [group[name] for group in shown], colour, label)
    axis.axhline(0, color="black", lw=0.8)
    axis.set_xticks(range(len(CONDITIONS)), CONDITIONS)
    axis.set(title=f"Weight's rank correlation, T = {TEMPERATURE:g}", ylabel="Spearman, within rounds")
    axis.set_ylim(-1.05, 1.05)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
