"""Runs that are known to be healthy, as the doctor reads them: kept ones, and drawn ones of other sizes."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from experiments.doctor import run_folder
from experiments.doctor.bands import BASE
from experiments.doctor.curves import Curves
from experiments.process.files import read_json
from tests.paths import ROOT
from w2v_jax.config import PRESETS

RESULTS = ROOT / "docs" / "results"
RUNS = sorted((RESULTS / "pretraining").glob("*.jsonl"))


def settings_of(model: str, **changes: Any) -> dict[str, Any]:
    """Make the settings of a run of pretrain with a preset's model."""
    config = vars(PRESETS[model])
    return {
        "model": model, "model_config": config, "preset": "centralised", "rounds": 40, "batch_size": 16,
        "crop_seconds": 2.0, "learning_rate": 1e-3, "optimizer": "adamw", "clients": None, "seed": 0,
    } | changes  # fmt: skip


def from_figure(arm: str, held: dict[str, Any]) -> Curves:
    """Read the held-out curve of a pre-training run that Figure 5 keeps; the untrained model is first."""
    names = {
        "loss": "heldout_contrastive",
        "accuracy": "heldout_accuracy",
        "code_perplexity": "heldout_code_perplexity",
    }
    rows = [
        {"round": index, "updates": updates, "clients": held["clients"]}
        | {column: held["curve"][name][place] for name, column in names.items()}
        for place, (index, updates) in enumerate(
            zip(held["curve"]["round"], held["curve"]["updates"], strict=True)
        )
    ]
    untrained = {"contrastive": rows[0]["heldout_contrastive"], "accuracy": rows[0]["heldout_accuracy"]}
    preset = "centralised" if arm == "centralised" else "ten-clients"
    settings = settings_of("tiny", preset=preset, rounds=rows[-1]["round"], clients=held["clients"])
    return run_folder.pretraining(settings, rows[1:], untrained)


def of_figure() -> dict[str, Curves]:
    kept = read_json(RESULTS / "fig5" / "fig5.json")["pretraining"]
    return {
        f"fig5 {arm} {held['seed']}": from_figure(arm, held) for arm, runs in kept.items() for held in runs
    }


def of_representations() -> dict[str, Curves]:
    """Read the ten runs of `study representations`, whose curves lie beside this file."""
    found = {}
    for run in read_json(Path(__file__).with_name("representations.json")):
        count = len(run["rounds"]["accuracy"])
        lines: list[dict[str, Any]] = [
            {"round": place + 1, "updates": 40 * (place + 1), "clients": 10, "skipped_clients": 0}
            | {name: values[place] for name, values in run["rounds"].items()}
            for place in range(count)
        ]
        for place, line in enumerate(lines[4::5]):  # --evaluate-every 5
            line |= {name: values[place] for name, values in run["evaluations"].items()}
        settings = settings_of(
            run["model"], preset="ten-clients", rounds=count, clients=10, batch_size=4, crop_seconds=1.0
        )
        name = f"{run['model']} {run['seed']}"
        found[name] = run_folder.pretraining(settings, lines, run["untrained"])
    return found


def drawn(
    model: str,
    seed: int,
    *,
    federated: bool = False,
    clip_norm: float | None = None,
    points: int = 20,
    updates: int = 20_000,
) -> Curves:
    """Draw the curves of a healthy pre-training run of a preset: they move as real ones do, with noise."""
    config, random = PRESETS[model], np.random.default_rng(seed)
    best_rq = config.objective == "best-rq"
    chance = math.log(config.target_entries if best_rq else config.num_negatives + 1)
    entries = config.target_codebooks * config.target_entries if best_rq else config.num_codes
    lines = []
    for place in range(1, points + 1):
        part = 1 - math.exp(-3 * place / points)
        step = round(place * updates / points)
        band = BASE.at(step) if model == "base" else None
        accuracy = 0.03 + 0.3 * part if band is None else band[0] + band[1] * random.normal() * 0.5
        loss, noise = chance * (1 - 0.35 * part), 0.01 * random.normal()
        codes = entries * (0.35 if best_rq else 0.06 + 0.3 * part)
        names = {"loss": loss} if best_rq else {"loss": loss + 0.3, "contrastive": loss}
        held = {f"heldout_{name}": value + 0.05 + noise for name, value in names.items()}
        line = {
            "round": place, "updates": step, **names, **held, "masked_share": 0.5, "code_perplexity": codes,
            "prob_perplexity": codes, "heldout_code_perplexity": 0.9 * codes, "accuracy": accuracy,
            "heldout_prob_perplexity": 0.9 * codes, "heldout_accuracy": accuracy + noise / 10,
            "heldout_shuffled_accuracy": 0.3 * accuracy, "heldout_accuracy_standard_error": 0.004,
            "chance_accuracy": 0.02, "clients": 10 if federated else 0, "skipped_clients": 0,
            "update_norm": 1.0,
        }  # fmt: skip
        clients = {
            "client_update_norm_mean": 2.4, "effective_clients": 9.7, "client_loss_min": 0.9 * loss,
            "client_loss_max": 1.1 * loss,
        }  # fmt: skip
        private = {} if clip_norm is None else {"clipped_share": 1.0, "update_norm": 0.6 * clip_norm}
        lines.append(line | (clients if federated else {}) | private)
    preset = "ten-clients" if federated else "centralised"
    rate = 5e-4 if model.endswith("base") else 1e-3
    settings = settings_of(model, preset=preset, rounds=points, clients=10, learning_rate=rate)
    settings["dp_clip_norm"] = clip_norm
    return run_folder.pretraining(settings, lines, {lines_loss(lines[0]): chance + 0.1, "accuracy": 0.01})


def lines_loss(line: dict[str, Any]) -> str:
    return "contrastive" if "contrastive" in line else "loss"


def recognizer(seed: int, *, keywords: bool = False) -> Curves:
    """Draw the curves of a fine-tuning run that has learnt."""
    random = np.random.default_rng(seed)
    lines = []
    for place in range(1, 21):
        part = 1 - math.exp(-place / 4)
        noise = 0.02 * random.normal()
        line = {
            "update": 500 * place, "epoch": float(place), "loss": 3.4 - 3.0 * part,
            "dev_loss": 3.4 - 2.7 * part + noise, "skipped_updates": 0, "head_learning_rate": 1e-3,
            "train_seconds": 9.0, "evaluation_seconds": 1.0,
        }  # fmt: skip
        quality = {"dev_accuracy": 0.9 * part, "accuracy": 0.95 * part}
        if not keywords:
            quality = {
                "dev_wer": 1.05 - 0.8 * part,
                "dev_cer": 1.0 - 0.9 * part,
                "dev_empty_hypotheses": 0,
                "infeasible": 0.0,
            }
        lines.append(line | quality)
    data = {"train": {"clips": 4000, "sentences": 35}, "dev": {"clips": 400}, "updates": 10_000}
    extra = {} if keywords else {"tokens": 30, "characters_without_token": {"dev": []}}
    settings = {"task": "keywords" if keywords else "recognition", "updates": None, "head_optimizer": "adam"}
    return run_folder.finetuning(settings, lines, data | extra)


def healthy() -> dict[str, Curves]:
    """List healthy runs by name: 30 that this project ran and kept, and others that are drawn."""
    found = {path.stem: run_folder.read_lines(Path(path)) for path in RUNS}
    found |= of_figure() | of_representations()
    for model, updates in (
        ("log-mel-small", 5_000),
        ("best-rq-small", 5_000),
        ("large", 250_000),
        ("best-rq-base", 100_000),
    ):
        found[f"drawn {model}"] = drawn(model, 1, updates=updates)
        found[f"drawn {model}, federated"] = drawn(model, 2, federated=True, updates=updates)
    found["drawn log-mel-small, private"] = drawn("log-mel-small", 3, federated=True, clip_norm=0.1)
    for seed in range(4):
        found[f"drawn base {seed}"] = drawn("base", seed, updates=400_000, points=8)
    for seed in range(2):
        found[f"drawn recognizer {seed}"] = recognizer(seed)
        found[f"drawn keywords {seed}"] = recognizer(seed, keywords=True)
    return {name: curves for name, curves in found.items() if curves is not None}


def cut(curves: Curves, share: float) -> Curves:
    """Take the first part of a run, as it was when it went on."""
    points = curves.points[: max(1, round(share * len(curves.points)))]
    return dataclasses.replace(curves, points=points, finished=False)
