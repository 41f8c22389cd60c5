"""Sort the columns of metrics.jsonl into groups, and find those that are the time of a line."""

import math
from collections.abc import Mapping
from typing import Any

# Columns by group. A column with a prefix is in the group of that name; all others are in `train`.
GROUPS = {
    "heldout": ("chance_accuracy",),  # the same as heldout_chance_accuracy
    "federation": (
        "clients", "skipped_clients", "too_large_clients", "dropped_clients", "late_clients",
        "effective_clients", "corrupted_weight", "client_loss_min", "client_loss_max", "update_norm",
        "client_update_norm_mean", "local_steps",
    ),
    "privacy": ("epsilon", "delta", "noise_multiplier", "clipped_share"),
    "cost": (
        "round_seconds", "train_seconds", "evaluation_seconds", "audio_seconds", "audio_seconds_a_second",
        "padded_share", "device_rate_share", "bytes_up", "bytes_down",
    ),
    "progress": ("updates", "epoch", "round"),
}  # fmt: skip
PREFIXES = ("heldout", "dev", "probe")
TRAINING_SECONDS = ("round_seconds", "train_seconds")
SECONDS = (*TRAINING_SECONDS, "evaluation_seconds")
PACE, RATE_SHARE = "audio_seconds_a_second", "device_rate_share"

_GROUP_OF = {column: group for group, columns in GROUPS.items() for column in columns}


def grouped_name(column: str) -> str:
    """Put a column's group before its name: train/loss, heldout/accuracy, federation/clients."""
    prefix, _, rest = column.partition("_")
    if prefix in PREFIXES and rest:
        return f"{prefix}/{rest}"
    return f"{_GROUP_OF.get(column, 'train')}/{column}"


def scalars(line: Mapping[str, Any], unit: str) -> dict[str, float]:
    """Select the finite numbers of a line by grouped name, without its `unit` (round or update)."""
    return {
        grouped_name(column): value
        for column, value in line.items()
        if column != unit
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def line_seconds(line: Mapping[str, Any]) -> float:
    """Add up the seconds of a line's work, with its evaluation."""
    return sum(line.get(name) or 0.0 for name in SECONDS)


def with_pace(line: Mapping[str, Any]) -> dict[str, Any]:
    """Add the seconds of speech that training heard in a second to a line that lacks them, if it has both."""
    training = sum(line.get(name) or 0.0 for name in TRAINING_SECONDS)
    speech = line.get("audio_seconds")
    if PACE in line or not training or speech is None:
        return dict(line)
    return {**line, PACE: speech / training}


def pace_text(line: Mapping[str, Any]) -> list[str]:
    """Describe what a line's training heard in a second, the padding, and the share of the device's rate."""
    line, parts = with_pace(line), []
    if line.get("audio_seconds") is not None:
        parts.append(f"speech {line['audio_seconds']:.0f} s")
    if line.get(PACE) is not None:
        parts.append(f"{line[PACE]:.3g} s of speech a second")
    if line.get("padded_share") is not None:
        parts.append(f"padding {100 * max(0.0, line['padded_share']):.0f} %")
    if line.get(RATE_SHARE) is not None:
        parts.append(f"{100 * line[RATE_SHARE]:.1f} % of the device's rate")
    return parts


def series(lines: list[dict[str, Any]], name: str, x: str = "round") -> tuple[list[float], list[float]]:
    """Collect (x, y) of the lines with a value in column `name`."""
    pairs = [(line[x], line[name]) for line in lines if line.get(name) is not None]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def finite_or_nan(value: float | None) -> float:
    """Read a number of a JSON file, in which null stands for one that was not finite."""
    return float("nan") if value is None else value
