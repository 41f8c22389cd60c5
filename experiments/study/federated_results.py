"""What the cells of the federated study say, as plain numbers."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.process.files import read_json
from experiments.report.statistics import minus, over_seeds
from experiments.runs.folder import DIAGNOSTICS, read_config, read_metrics
from experiments.study.federated import (
    ARMS,
    BUDGET_ARMS,
    CENTRALISED,
    FEDERATED,
    PRETRAINED,
    PROBED,
    SCRATCH,
    TREND_ARMS,
    Rates,
    Study,
    curve,
    recognised,
)

RATES = ("wer", "cer", "loss")
# Shares of the way from the untrained loss to where centralised training ends.
TARGET_SHARES = (0.25, 0.5, 0.75, 1.0)


def fig5(study: Study, rates: Rates, seconds: dict[str, float]) -> dict[str, Any]:
    """Curves, error rates and comparisons of all cells."""
    seeds = study.seed_range()

    def runs(name_of: Any, arms: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        return {arm: [recognised(name_of(arm, seed).out) for seed in seeds] for arm in arms}

    def tuned(arm: str, seed: int, **more: Any) -> Any:
        return study.finetuning(arm, seed, rates.of_encoder(arm), **more)

    def probe(arm: str, seed: int, **more: Any) -> Any:
        return study.probe(arm, seed, rates.of_probe(arm), **more)

    fine = runs(tuned, ARMS)
    probes = runs(probe, PROBED)
    trend = {
        kind: {
            arm: {
                str(at_round): [recognised(make(arm, seed, at_round=at_round).out) for seed in seeds]
                for at_round in study.scale.trend_rounds
            }
            for arm in TREND_ARMS[kind]
        }
        for kind, make in (("finetune", tuned), ("probe", probe))
    }
    budgets = {
        f"{minutes:g}": runs(lambda arm, seed, m=minutes: tuned(arm, seed, minutes=m), BUDGET_ARMS)
        for minutes in study.scale.budget_minutes
    }
    return {
        "scale": study.scale_name,
        "settings": dataclasses.asdict(study.scale),
        "data": study.data,
        "seeds": study.seeds,
        "learning_rates": rates._asdict(),
        "tuning": [
            {"what": what, "arm": arm, "rate": rate, **(recognised(cell.out) if cell.finished else {})}
            for what, arm, rate, cell in study.tuning()
        ],
        "pretraining": {arm: pretraining(study, arm) for arm in PRETRAINED},
        "finetuning": fine,
        "budgets": budgets,
        "probes": probes,
        "trend": trend,
        "train_minutes": read_json(tuned(SCRATCH, 0).out / "data.json")["train"]["seconds"] / 60.0,
        "test_words": read_json(tuned(SCRATCH, 0).out / "results.json")["test"]["words"],
        "comparisons": comparisons(fine, probes, budgets),
        "cell_seconds": seconds,
    }


def pretraining(study: Study, arm: str) -> list[dict[str, Any]]:
    """An arm's curves and clients by seed."""
    found = []
    for seed in study.seed_range():
        folder = study.pretraining(arm, seed).out
        clips = read_json(folder / "clips.json")
        found.append(
            {
                "seed": seed,
                "curve": curve(folder),
                "clients": len(clips["clients"]),
                "effective_clients": _mean_of_lines(folder, "effective_clients"),
                "looks": [look_summary(look) for look in read_metrics(folder / DIAGNOSTICS)],
                "speakers_also_in": clips.get("speakers_also_in", {}),
            }
        )
    return found


def look_summary(look: dict[str, Any]) -> dict[str, Any]:
    """Means over the clients of a line of diagnostics.jsonl, beside the averaged model."""

    def mean(name: str) -> float | None:
        values = [client[name] for client in look["clients"] if client[name] is not None]
        return float(np.mean(values)) if values else None

    return {
        "round": look["round"],
        "cosine_to_mean": mean("cosine_to_mean"),
        "cosine_to_others": mean("cosine_to_others"),
        "local_loss": mean("heldout_contrastive"),
        "local_codes": mean("heldout_code_perplexity"),
        "averaged_loss": look["after"]["contrastive"],
        "averaged_codes": look["after"]["code_perplexity"],
    }


def _mean_of_lines(folder: Path, name: str) -> float | None:
    values = [line[name] for line in read_metrics(folder / "metrics.jsonl") if line.get(name) is not None]
    return float(np.mean(values)) if values else None


def comparisons(
    fine: dict[str, list[dict[str, Any]]],
    probes: dict[str, list[dict[str, Any]]],
    budgets: dict[str, dict[str, list[dict[str, Any]]]],
) -> list[dict[str, Any]]:
    """Paired differences of error rates and losses, seed by seed; negative: the first is better.

    Rows of smaller budgets have `minutes`.
    """
    pairs = [("finetuning", arm, SCRATCH) for arm in PRETRAINED]
    pairs += [("finetuning", arm, CENTRALISED) for arm in FEDERATED]
    pairs += [("finetuning", *_rules(clients)) for clients in ("ten", "hundred")]
    pairs += [("finetuning", *_sizes(rule)) for rule in ("fedavg", "loss-weighted")]
    pairs += [("probes", arm, against) for arm in PRETRAINED for against in ("log-mel", "random")]
    rows_of = {"finetuning": fine, "probes": probes}
    return [
        {"kind": kind, "arm": one, "against": other} | _difference(rows_of[kind][one], rows_of[kind][other])
        for kind, one, other in pairs
    ] + [
        {"kind": "finetuning", "minutes": float(minutes), "arm": arm, "against": SCRATCH}
        | _difference(rows[arm], rows[SCRATCH])
        for minutes, rows in budgets.items()
        for arm in BUDGET_ARMS
        if arm != SCRATCH
    ]


def _difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: over_seeds([minus(a[name], b[name]) for a, b in zip(ours, theirs, strict=True)])
        for name in RATES
    }


def _rules(clients: str) -> tuple[str, str]:
    return f"{clients}-clients-loss-weighted", f"{clients}-clients-fedavg"


def _sizes(rule: str) -> tuple[str, str]:
    return f"ten-clients-{rule}", f"hundred-clients-{rule}"


def reached_for_good(x: Sequence[float], loss: Sequence[float], target: float) -> float | None:
    """From where on a loss curve, of straight lines, stays at or below a target; None if it ends above.

    A dip does not count: a contrastive loss falls for a while whenever few codes are in use.
    """
    above = [index for index, value in enumerate(loss) if value > target]
    if not above:
        return float(x[0])
    last = above[-1]
    if last == len(loss) - 1:
        return None
    share = (loss[last] - target) / (loss[last] - loss[last + 1])
    return float(x[last] + share * (x[last + 1] - x[last]))


def _ratio(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference


def fig1(study: Study) -> dict[str, Any]:
    """Curves, and updates and audio to reach what centralised training reached, by seed."""
    arms = {arm: pretraining(study, arm) for arm in PRETRAINED}
    targets = []
    for share in TARGET_SHARES:
        row: dict[str, Any] = {"share": share, "arms": {}}
        for arm in PRETRAINED:
            by_seed = []
            for central, run in zip(arms[CENTRALISED], arms[arm], strict=True):
                losses = central["curve"]["loss"]
                # Rounding must not put the whole way below where it ends.
                target = max(losses[0] + share * (losses[-1] - losses[0]), losses[-1])
                # A centralised run that ends no better than it began gives nothing to reach.
                improves = losses[-1] < losses[0]
                reached, reference = (
                    {
                        axis: reached_for_good(of[axis], of["loss"], target) if improves else None
                        for axis in ("updates", "audio_seconds")
                    }
                    for of in (run["curve"], central["curve"])
                )
                codes = None
                if reached["audio_seconds"] is not None:
                    of = run["curve"]
                    codes = float(
                        np.interp(reached["audio_seconds"], of["audio_seconds"], of["code_perplexity"])
                    )
                by_seed.append(
                    {
                        "target_loss": target,
                        **reached,
                        "code_perplexity": codes,
                        **{f"{axis}_ratio": _ratio(reached[axis], reference[axis]) for axis in reached},
                    }
                )
            row["arms"][arm] = {
                "by_seed": by_seed,
                "reached": sum(found["updates"] is not None for found in by_seed),
                **{
                    name: over_seeds([found[name] for found in by_seed])
                    for name in (
                        "updates",
                        "audio_seconds",
                        "updates_ratio",
                        "audio_seconds_ratio",
                        "code_perplexity",
                    )
                },
            }
        targets.append(row)
    ended = {
        arm: over_seeds(
            [
                _ratio(
                    run["curve"]["loss"][0] - run["curve"]["loss"][-1],
                    max(0.0, central["curve"]["loss"][0] - central["curve"]["loss"][-1]),
                )
                for central, run in zip(arms[CENTRALISED], arms[arm], strict=True)
            ]
        )
        for arm in PRETRAINED
    }
    return {
        "scale": study.scale_name,
        "settings": dataclasses.asdict(study.scale),
        "data": study.data,
        "seeds": study.seeds,
        "pretraining": arms,
        "targets": targets,
        "share_of_centralised_drop": ended,
    }


def cell_provenance(study: Study) -> dict[str, Any]:
    """Device, cores and flags of the processes that trained, and the commits of all cells."""
    runs = [
        read_config(folder)["provenance"]
        for folder in sorted((study.out / "cells").iterdir())
        if (folder / "config.json").exists()
    ]
    return {
        "device": runs[0]["device"],
        "cores": sorted({run["cores"] for run in runs}),
        "xla_flags": runs[0]["xla_flags"],
        "cell_commits": sorted({run["commit"] for run in runs}),
    }
