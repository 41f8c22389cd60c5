"""Settings of the study of loss weighting, and the numbers that are computed from its runs.

The study compares a client's weight, within a round, with two quantities. *Good* is the drop of the held-out
loss from the global model that the client started from to its local model. *Easy* is how low that global
model's loss already was on the client's own training audio.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.process.files import read_json
from experiments.report.statistics import minus, over_seeds
from experiments.runs.folder import DIAGNOSTICS, METRICS, read_config, read_metrics
from experiments.runs.tasks import require_objective

CLEAN = "clean"
CONDITIONS = (CLEAN, "noise", "clip", "quiet")
SPOILT_CLIENTS = 2
FEDAVG, LOSS_WEIGHTED = "fedavg", "loss-weighted"
TEMPERATURE = 1.0
TEMPERATURES = (0.05, 0.2, TEMPERATURE, 5.0)
SWEPT = (CLEAN, "noise")  # conditions of the sweep over temperatures

RESULTS = ("heldout_contrastive", "heldout_accuracy", "heldout_code_perplexity")
CORRELATIONS = (
    "weight_with_good",
    "weight_with_easy",
    "easy_with_good",
    "weight_with_good_given_codes",
    "weight_with_easy_given_codes",
    "heldout_loss_with_codes",
    "weight_with_good_clean_clients",
    "weight_with_easy_clean_clients",
)
VALUES = ("spoilt_share", "effective_clients", *RESULTS, *CORRELATIONS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The setting of a cell, which has a seed besides; `temperature` is None under fedavg."""

    condition: str
    rule: str
    temperature: float | None = None

    @property
    def rule_label(self) -> str:
        return self.rule if self.temperature is None else f"{self.rule}, T = {self.temperature:g}"

    @property
    def name(self) -> str:
        """The setting as the name of a folder."""
        temperature = "" if self.temperature is None else f"-t{self.temperature:g}"
        return f"{self.condition}-{self.rule}{temperature}"


def settings() -> list[Setting]:
    """List every condition with both rules, and the other temperatures for the swept conditions."""
    both = [
        Setting(condition=condition, rule=rule, temperature=TEMPERATURE if rule == LOSS_WEIGHTED else None)
        for condition in CONDITIONS
        for rule in (FEDAVG, LOSS_WEIGHTED)
    ]
    swept = [
        Setting(condition=condition, rule=LOSS_WEIGHTED, temperature=temperature)
        for condition in SWEPT
        for temperature in TEMPERATURES
        if temperature != TEMPERATURE
    ]
    return both + swept


def read_cell(folder: Path, setting: Setting, seed: int) -> dict[str, Any]:
    """Read the row of a run: its setting, seed and VALUES (None where one is not defined).

    `spoilt_share` and `effective_clients` are means over all rounds; correlations are means over diagnosed
    rounds. Under the clean condition the share is that of the clients that this seed would spoil.

    Raises:
        UserError: the run has another objective.
        ValueError: the run spoilt other clients than its seed chooses.
    """
    require_objective(folder, "wav2vec2", "study mechanism")
    from experiments.data import corruption

    lines, looks = read_metrics(folder / METRICS), read_metrics(folder / DIAGNOSTICS)
    clips = read_json(folder / "clips.json")
    spoilt = corruption.choose(list(clips["clients"]), SPOILT_CLIENTS, seed)
    held = clips.get("corruption", {"clients": spoilt})["clients"]
    if held != spoilt:
        raise ValueError(f"{folder} spoilt {held}, not {spoilt}")
    shares = [
        sum(
            weight
            for client, weight in zip(line["client_ids"], line["client_weights"], strict=True)
            if client in spoilt
        )
        for line in lines
    ]
    row: dict[str, Any] = dataclasses.asdict(setting) | {
        "seed": seed,
        "spoilt_clients": spoilt,
        "fair_share": len(spoilt) / len(clips["clients"]),
        "spoilt_share": float(np.mean(shares)),
        "effective_clients": float(np.mean([line["effective_clients"] for line in lines])),
        "chance_accuracy": lines[-1]["chance_accuracy"],
        "untrained_contrastive": read_json(folder / "untrained.json")["contrastive"],
        "commit": read_config(folder)["provenance"]["commit"],
    }
    row |= {name: lines[-1][name] for name in RESULTS}
    return row | {
        name: _mean([found[name] for found in map(look_correlations, looks)]) for name in CORRELATIONS
    }


def look_correlations(look: dict[str, Any]) -> dict[str, float | None]:
    """Compute CORRELATIONS, which are Spearman's, between the clients of one line of diagnostics.jsonl.

    `easy` is larger for an easier client, `good` for a better one. `..._clean_clients` leaves out the clients
    with spoilt audio, which may differ from the others in both.
    """
    before = look["before"]["contrastive"]

    def of(clients: Sequence[dict[str, Any]]) -> dict[str, float | None]:
        weight = [client["weight"] for client in clients]
        easy = [minus(0.0, client["own_contrastive"]) for client in clients]
        good = [minus(before, client["heldout_contrastive"]) for client in clients]
        codes = [client["heldout_code_perplexity"] for client in clients]
        heldout = [client["heldout_contrastive"] for client in clients]
        return {
            "weight_with_good": rank_correlation(weight, good),
            "weight_with_easy": rank_correlation(weight, easy),
            "easy_with_good": rank_correlation(easy, good),
            "weight_with_good_given_codes": partial_rank_correlation(weight, good, codes),
            "weight_with_easy_given_codes": partial_rank_correlation(weight, easy, codes),
            "heldout_loss_with_codes": rank_correlation(heldout, codes),
        }

    clean = of([client for client in look["clients"] if not client["corrupted"]])
    return of(look["clients"]) | {
        f"{name}_clean_clients": clean[name] for name in ("weight_with_good", "weight_with_easy")
    }


def rank_correlation(first: Sequence[float | None], second: Sequence[float | None]) -> float | None:
    """Compute Spearman's rank correlation of pairs without None; None below three pairs or without order."""
    from scipy.stats import spearmanr

    pairs = [pair for pair in zip(first, second, strict=True) if None not in pair]
    if len(pairs) < 3 or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
        return None
    left, right = np.array(pairs, np.float64).T
    result: Any = spearmanr(left, right)
    return float(result.statistic)


def partial_rank_correlation(
    first: Sequence[float | None], second: Sequence[float | None], given: Sequence[float | None]
) -> float | None:
    """Compute Spearman's partial correlation of two columns given a third, over rows without None.

    Where the third column has no order, this is the plain correlation; where it explains everything, None.
    """
    rows = [row for row in zip(first, second, given, strict=True) if None not in row]
    left, right, third = ([row[place] for row in rows] for place in range(3))
    both = rank_correlation(left, right)
    if both is None:
        return None
    one, other = rank_correlation(left, third) or 0.0, rank_correlation(right, third) or 0.0
    rest = (1.0 - one**2) * (1.0 - other**2)
    return (both - one * other) / rest**0.5 if rest > 1e-9 else None


def groups(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Summarise VALUES of each setting over its seeds."""
    return [
        dataclasses.asdict(setting)
        | {"fair_share": of[0]["fair_share"]}
        | {name: over_seeds([row[name] for row in of]) for name in VALUES}
        for setting in settings()
        if (of := rows_of(rows, setting))
    ]


def rows_of(rows: Sequence[dict[str, Any]], setting: Setting) -> list[dict[str, Any]]:
    """Pick the rows of a setting, in the order of seeds."""
    wanted = dataclasses.asdict(setting)
    found = [row for row in rows if {name: row[name] for name in wanted} == wanted]
    return sorted(found, key=lambda row: row["seed"])


def paired(rows: Sequence[dict[str, Any]], one: Setting, other: Setting, name: str) -> dict[str, Any]:
    """Subtract a value under `other` from that under `one`, seed by seed."""
    theirs = {row["seed"]: row[name] for row in rows_of(rows, other)}
    mine = [row for row in rows_of(rows, one) if row["seed"] in theirs]
    return over_seeds([minus(row[name], theirs[row["seed"]]) for row in mine])


def comparisons(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compute paired differences: loss-weighted settings against fedavg, spoilt conditions against clean."""
    found = []
    for setting in settings():
        pairs: list[tuple[str, Setting]] = []
        if setting.rule == LOSS_WEIGHTED:
            pairs.append((FEDAVG, dataclasses.replace(setting, rule=FEDAVG, temperature=None)))
        if setting.condition != CLEAN:
            pairs.append((CLEAN, dataclasses.replace(setting, condition=CLEAN)))
        for against, other in pairs:
            differences = {name: paired(rows, setting, other, name) for name in RESULTS}
            found.append(dataclasses.asdict(setting) | {"against": against} | differences)
    return found


def count_where(holds: Callable[[float], bool], by_seed: Sequence[float | None]) -> tuple[int, int]:
    """Count (seeds where `holds` is true, seeds that have a value)."""
    found = [value for value in by_seed if value is not None]
    return sum(map(holds, found)), len(found)


def _mean(values: Sequence[float | None]) -> float | None:
    return over_seeds(values)["mean"]
