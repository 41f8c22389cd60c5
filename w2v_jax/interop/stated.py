"""Settings that a checkpoint states of its model, and the origins of those that it leaves out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from w2v_jax.config import PRESETS, TRAINING_SETTINGS, ModelConfig, nearest_preset, same_shape

PRESET = "preset "  # an origin begins with it where the checkpoint states nothing


class Resolved(NamedTuple):
    """A whole configuration.

    Attributes:
        config: the configuration.
        origins: for each training setting, what it was taken from.
        preset: the preset that lent what the checkpoint leaves out.
    """

    config: ModelConfig
    origins: dict[str, str]
    preset: str


@dataclasses.dataclass(frozen=True)
class Stated:
    """The settings that a checkpoint states.

    Attributes:
        values: fields of `ModelConfig`; training settings among them are only those that it states.
        origins: for each of these training settings, the file or the name that states it.
        notes: lines for the user: what is assumed, and what is stated but not used.
    """

    values: dict[str, Any]
    origins: dict[str, str]
    notes: tuple[str, ...] = ()

    def shape(self) -> ModelConfig:
        """The configuration with the base model's settings wherever the checkpoint states none."""
        return ModelConfig.from_dict(self.values)

    def resolve(self) -> Resolved:
        """Take what the checkpoint states, and the rest from the preset of the same shape, or the nearest.

        Raises:
            ValueError, TypeError: values that `ModelConfig` refuses.
        """
        shape = self.shape()
        name = nearest_preset(shape)
        alike = same_shape(shape, PRESETS[name])
        why = "of the same shape" if alike else "the nearest; none has this shape"
        lent = [field for field in TRAINING_SETTINGS if field not in self.origins]
        values = {field: getattr(PRESETS[name], field) for field in lent}
        if alike and "scan_unroll" not in self.values:
            values["scan_unroll"] = PRESETS[name].scan_unroll
        origins = {field: self.origins.get(field, f"{PRESET}{name} ({why})") for field in TRAINING_SETTINGS}
        return Resolved(shape.replace(**values), origins, name)


def of_config(config: Mapping[str, Any], origins: Mapping[str, str]) -> Stated:
    """The reverse of `Stated.resolve`, for what a run folder keeps: presets' settings are given back.

    Args:
        config: fields of `ModelConfig`.
        origins: as `Resolved` has them.
    """
    stated = {field: origin for field, origin in origins.items() if not origin.startswith(PRESET)}
    left_out = {field for field in TRAINING_SETTINGS if field not in stated}
    return Stated({field: value for field, value in config.items() if field not in left_out}, stated)


def describe(resolved: Resolved, fields: Sequence[str] = TRAINING_SETTINGS) -> list[str]:
    """One line for each origin, with the settings that come from it and their values."""
    lines: dict[str, list[str]] = {}
    for field in fields:
        lines.setdefault(resolved.origins[field], []).append(f"{field} {getattr(resolved.config, field):g}")
    return [f"training settings from {origin}: {', '.join(held)}" for origin, held in lines.items()]


def table(resolved: Resolved, fields: Sequence[str] = TRAINING_SETTINGS) -> dict[str, dict[str, Any]]:
    """The same for a JSON file: each setting with its value and its origin."""
    return {
        field: {"value": getattr(resolved.config, field), "from": resolved.origins[field]} for field in fields
    }
