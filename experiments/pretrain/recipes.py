"""Presets of federated runs and training recipes by model size. Imports no jax."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class FederationPreset:
    """Numbers of clients, rounds and local steps: section 4.2 of the paper, scaled to small corpora."""

    clients: int
    clients_per_round: int
    rounds: int
    local_steps: int


PRESETS = {
    "ten-clients": FederationPreset(clients=10, clients_per_round=10, rounds=40, local_steps=25),
    "hundred-clients": FederationPreset(clients=100, clients_per_round=20, rounds=40, local_steps=25),
    "centralised": FederationPreset(clients=1, clients_per_round=1, rounds=40, local_steps=250),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """Local training of one model size; docs/results shows what the tiny one reaches."""

    batch_size: int
    crop_seconds: float
    learning_rate: float
    warmup_share: float  # of all global updates
    clip_norm: float
    weight_decay: float


RECIPES = {
    "tiny": TrainingRecipe(
        batch_size=4,
        crop_seconds=2.0,
        learning_rate=2e-3,
        warmup_share=0.05,
        clip_norm=1.0,
        weight_decay=0.01,
    ),
    # This follows fairseq's base recipe, whose batches are larger than a client's here. It was not run yet.
    "base": TrainingRecipe(
        batch_size=4,
        crop_seconds=5.5,
        learning_rate=5e-4,
        warmup_share=0.08,
        clip_norm=25.0,
        weight_decay=0.01,
    ),
}
RECIPES["large"] = RECIPES["large-lv60"] = RECIPES["best-rq-base"] = RECIPES["base"]
_ON_LOG_MEL = TrainingRecipe(
    batch_size=16,
    crop_seconds=2.0,
    learning_rate=1e-3,
    warmup_share=0.05,
    clip_norm=1.0,
    weight_decay=0.01,
)
for _name in ("best-rq-tiny", "best-rq-small", "log-mel-tiny", "log-mel-small"):
    RECIPES[_name] = _ON_LOG_MEL


Aggregation = Literal["fedavg", "loss-weighted", "uniform"]
ServerOptimizer = Literal["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad"]
Partition = Literal["balanced", "speakers", "iid", "dirichlet", "dirichlet-equal"]
SKEWED_PARTITIONS = ("dirichlet", "dirichlet-equal")  # those that deal a column unevenly
Corruption = Literal["none", "noise", "clip", "quiet"]
SkewedColumn = Literal["accent", "age", "gender"]
EVALUATION_CROP_SECONDS = 2.5
EVALUATION_BATCH_SIZE = 16


def privacy_caveat(settings: Mapping[str, Any]) -> str | None:
    """Say that clients are not speakers in a private run with the iid partition; None otherwise."""
    if settings.get("dp_clip_norm") is None or settings["partition"] != "iid":
        return None
    return (
        "warning: privacy protects clients, and with --partition iid a speaker's clips are spread over many "
        "clients: no speaker is protected; use another --partition for that"
    )
