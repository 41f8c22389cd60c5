"""Results of the federated study, read from its cells as plain numbers."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from experiments.process.files import read_json
from experiments.report.statistics import minus, over_seeds
from experiments.runs.folder import DIAGNOSTICS, METRICS, read_config, read_metrics
from experiments.runs.tasks import require_objective
from experiments.study.federated import Rates, Study
from experiments.study.federated_scales import (
    ARMS,
    BUDGET_ARMS,
    CENTRALISED,
    FEDERATED,
    PRETRAINED,
    PROBED,
    SCRATCH,
    TREND_ARMS,
)

RATES = ("wer", "cer", "loss")


class Recognised(TypedDict):
    """The row of one fine-tuning. Error rates are shares; losses are nats a character."""

    wer: float
    cer: float
    loss: float
    empty_hypotheses: int
    dev_cer: float
    dev_loss: float
    best_update: int
    audio_seconds: float
    train_seconds: float
    commit: str


RowsByArm = dict[str, list[Recognised]]  # a row a seed


def recognised(folder: Path) -> Recognised:
    """Read the row of a fine-tuning from its folder."""
    result = read_json(folder / "results.json")
    test, dev = result["test"], result["dev"]
    return Recognised(
        wer=test["wer"],
        cer=test["cer"],
        loss=test["loss"],
        empty_hypotheses=test["empty_hypotheses"],
        dev_cer=dev["cer"],
        dev_loss=dev["loss"],
        best_update=result["best_update"],
        audio_seconds=result["audio_seconds"],
        train_seconds=result["train_seconds"],
        commit=result["provenance"]["commit"],
    )


def curve(folder: Path) -> dict[str, list[float]]:
    """Read the held-out curve of a pre-training, which begins with the untrained model.

    Returns:
        Lists of equal length: `round`; `updates`, one after another, of the model so far; `audio_seconds`
        that all clients together have heard so far; held-out `loss` in nats, `accuracy` (a share) and
        `code_perplexity`.

    Raises:
        UserError: the run has another objective.
    """
    require_objective(folder, "wav2vec2", "the federated study (figures 1 and 5)")
    untrained = read_json(folder / "untrained.json")
    names = {"loss": "contrastive", "accuracy": "accuracy", "code_perplexity": "code_perplexity"}
    found: dict[str, list[float]] = {
        "round": [0],
        "updates": [0],
        "audio_seconds": [0.0],
        **{ours: [untrained[theirs]] for ours, theirs in names.items()},
    }
    audio, updates = 0.0, 0
    for line in read_metrics(folder / METRICS):
        audio += line["audio_seconds"]
        updates += round(line["local_steps"] / max(1, line["clients"]))
        if line.get("heldout_contrastive") is None:
            continue
        found["round"].append(line["round"])
        found["updates"].append(updates)
        found["audio_seconds"].append(audio)
        for ours, theirs in names.items():
            found[ours].append(line[f"heldout_{theirs}"])
    return found


def fig5(study: Study, rates: Rates, seconds: dict[str, float]) -> dict[str, Any]:
    """Collect curves, error rates and comparisons of all cells: the content of fig5.json."""
    seeds = study.seed_range()

    def runs(name_of: Any, arms: Sequence[str]) -> RowsByArm:
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
    """Read the pre-training of an arm: curve, clients and diagnoses, one row a seed."""
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
    """Average the clients of a line of diagnostics.jsonl, and put the averaged model's values beside them."""

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
    values = [line[name] for line in read_metrics(folder / METRICS) if line.get(name) is not None]
    return float(np.mean(values)) if values else None


def comparisons(
    fine: RowsByArm,
    probes: RowsByArm,
    budgets: dict[str, RowsByArm],
) -> list[dict[str, Any]]:
    """Subtract error rates and losses of two arms, seed by seed; negative: `arm` is better than `against`.

    Args:
        fine, probes: rows by arm and seed.
        budgets: rows by minutes of labels, arm and seed.
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


def _difference(ours: list[Recognised], theirs: list[Recognised]) -> dict[str, Any]:
    return {
        name: over_seeds([minus(a[name], b[name]) for a, b in zip(ours, theirs, strict=True)])
        for name in RATES
    }


def _rules(clients: str) -> tuple[str, str]:
    return f"{clients}-clients-loss-weighted", f"{clients}-clients-fedavg"


def _sizes(rule: str) -> tuple[str, str]:
    return f"ten-clients-{rule}", f"hundred-clients-{rule}"


def cell_provenance(study: Study) -> dict[str, Any]:
    """Collect device, cores and XLA flags of the processes that trained, and the commits of all cells."""
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
