"""Text of mechanism.md: tables of mechanism.json, and the sentences of `sentences`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.report.statistics import mean_spread, signed
from experiments.report.tables import table
from experiments.study.mechanism.sentences import mean_of, rule_label, sentences
from experiments.study.mechanism.settings import CLEAN, FEDAVG, SPOILT_CLIENTS, count_where

CORRELATIONS = {
    "weight_with_good": "weight, good",
    "weight_with_easy": "weight, easy",
    "easy_with_good": "easy, good",
    "weight_with_good_clean_clients": "weight, good: clean clients",
    "weight_with_easy_clean_clients": "weight, easy: clean clients",
    "weight_with_good_given_codes": "weight, good given codes",
    "weight_with_easy_given_codes": "weight, easy given codes",
    "heldout_loss_with_codes": "held-out loss, codes",
}


def markdown(result: dict[str, Any]) -> str:
    """Make the report that readers see."""
    rows = result["rows"]
    parts = [
        "# What loss-weighted averaging rewards",
        *_what_was_run(result),
        "![figure](mechanism.png)",
        "## What the numbers say",
        "\n".join(f"- {sentence}" for sentence in sentences(result)),
        "## Weights and results",
        _results_table(result),
        f"The fair share is {result['groups'][0]['fair_share']:.3f}; under `{CLEAN}` the share is that of "
        "the same clients, unspoilt. Shares and effective clients (1 / sum of squared weights) are means "
        f"over all rounds. Guessing would score {mean_of(rows, 'chance_accuracy'):.4f}, and the untrained "
        f"models' loss was {mean_of(rows, 'untrained_contrastive'):.4f}.",
        "## Differences, seed by seed",
        _differences_table(result),
        f"`minus {FEDAVG}`: the same condition under {FEDAVG}. `minus {CLEAN}`: the same rule without "
        "spoilt audio. The columns `lower in` and `higher in` count seeds; they are no test.",
        "## Good or merely easy",
        "The table has Spearman's rank correlation between clients, within a diagnosed round, averaged "
        "over rounds. *Good*: by how much a client's local model lowers the loss on held-out clips below "
        "that of the global model that it started from. *Easy*: how low that global model's loss already "
        "is on the client's own training clips, as it hears them. `clean clients` leaves the spoilt ones "
        "out. A contrastive loss is lower where fewer codes are in use; the last column has its "
        "correlation with them over local models. *Good* therefore rewards collapse too: `given codes` are "
        "partial correlations that take the codes out.",
        _correlations_table(result),
        "Under fedavg weights are seconds of audio: its rows show what such correlations are when losses "
        "play no part.",
        _made(result),
    ]
    return "\n\n".join(parts) + "\n"


def _what_was_run(result: dict[str, Any]) -> list[str]:
    scale, seeds = result["scale"], result["seeds"]
    data = (
        f"`{'/'.join(Path(result['data']).parts[-2:])}`"
        if result["data"]
        else "the built-in synthetic corpus (generated, not speech)"
    )
    spread = "which one seed does not have" if seeds == 1 else f"n = {seeds}"
    return [
        f"Ten clients pre-train `tiny` for {scale['rounds']} rounds of {scale['local_steps']} updates on "
        f"{data}, {seeds} {'seed' if seeds == 1 else 'seeds'} of each setting. In all conditions but "
        f"`{CLEAN}` the training audio of {SPOILT_CLIENTS} clients is spoilt; held-out audio never is. "
        f"± is the standard deviation over seeds ({spread}).",
        f"{scale['rounds'] * scale['local_steps']} updates are a short run: differences between rules here "
        "are those of early training.",
    ]


def _results_table(result: dict[str, Any]) -> str:
    columns = {
        "spoilt_share": ("spoilt share", 3),
        "effective_clients": ("effective clients", 2),
        "heldout_contrastive": ("held-out loss", 4),
        "heldout_accuracy": ("accuracy", 4),
        "heldout_code_perplexity": ("codes", 1),
    }
    return table(
        ("condition", "rule", *(title for title, _ in columns.values())),
        [
            (
                group["condition"],
                rule_label(group),
                *(mean_spread(group[name]["by_seed"], digits) for name, (_, digits) in columns.items()),
            )
            for group in result["groups"]
        ],
    )


def _differences_table(result: dict[str, Any]) -> str:
    return table(
        ("condition", "rule", "minus", "held-out loss", "lower in", "accuracy", "higher in"),
        [
            (
                row["condition"],
                rule_label(row),
                row["against"],
                signed(row["heldout_contrastive"], 4),
                _seeds(row["heldout_contrastive"], lambda value: value < 0),
                signed(row["heldout_accuracy"], 4),
                _seeds(row["heldout_accuracy"], lambda value: value > 0),
            )
            for row in result["comparisons"]
        ],
    )


def _correlations_table(result: dict[str, Any]) -> str:
    return table(
        ("condition", "rule", *CORRELATIONS.values()),
        [
            (group["condition"], rule_label(group), *(signed(group[name], 2) for name in CORRELATIONS))
            for group in result["groups"]
        ],
    )


def _seeds(value: dict[str, Any], holds: Callable[[float], bool]) -> str:
    count, number = count_where(holds, value["by_seed"])
    return f"{count} of {number}"


def _made(result: dict[str, Any]) -> str:
    provenance = result["provenance"]
    known = [row["seconds"] for row in result["rows"] if row["seconds"] is not None]
    versions = ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())
    return (
        f"`{provenance['command']}`, commit {provenance['commit']} (cells: "
        f"{', '.join(provenance['cell_commits'])}), {provenance['device']}, {provenance['cores']} cores, "
        f"{sum(known) / 60:.0f} min for {len(known)} cells, {versions}, flags `{provenance['xla_flags']}`"
    )
