"""What the columns of a metrics.jsonl are: their groups, and which of them are a line's time."""

import math
from collections.abc import Mapping
from typing import Any

# Columns by group; those with a prefix are in the group of that name, all others are of training.
GROUPS = {
    "heldout": ("chance_accuracy",),  # heldout_chance_accuracy again
    "federation": (
        "clients", "skipped_clients", "too_large_clients", "dropped_clients", "late_clients",
        "effective_clients", "corrupted_weight", "client_loss_min", "client_loss_max", "update_norm",
        "client_update_norm_mean", "local_steps",
    ),
    "privacy": ("epsilon", "delta", "noise_multiplier", "clipped_share"),
    "cost": (
        "round_seconds", "train_seconds", "evaluation_seconds", "audio_seconds", "padded_share", "bytes_up",
        "bytes_down",
    ),
    "progress": ("updates", "epoch"),
}  # fmt: skip
PREFIXES = ("heldout", "dev")
SECONDS = ("round_seconds", "train_seconds", "evaluation_seconds")

_GROUP_OF = {column: group for group, columns in GROUPS.items() for column in columns}


def grouped_name(column: str) -> str:
    """A column's name with its group before it: train/loss, heldout/accuracy, federation/clients."""
    prefix, _, rest = column.partition("_")
    if prefix in PREFIXES and rest:
        return f"{prefix}/{rest}"
    return f"{_GROUP_OF.get(column, 'train')}/{column}"


def scalars(line: Mapping[str, Any], unit: str) -> dict[str, float]:
    """The finite numbers of a line but for its `unit` (round or update), by grouped name; no lists."""
    return {
        grouped_name(column): value
        for column, value in line.items()
        if column != unit
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def line_seconds(line: Mapping[str, Any]) -> float:
    """Seconds that the work of a line took, evaluation included."""
    return sum(line.get(name) or 0.0 for name in SECONDS)


def series(lines: list[dict[str, Any]], name: str, x: str = "round") -> tuple[list[float], list[float]]:
    """(x, y) of the rounds that have a value."""
    pairs = [(line[x], line[name]) for line in lines if line.get(name) is not None]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
