"""Rows of the feasibility table: a step on a device, and the verdict on a device. Imports no jax."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from profiling.feasibility import Verdict

REFERENCE = "a40"  # whose compute and energy are the measure
# How far a plain step's measured peak was from its compiled plan, at most (docs/results/profile, on a CPU).
PLAN_ERROR = 0.10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A row of a result: its fields are the keys of its JSON."""

    def to_json(self) -> dict[str, Any]:
        """Give the fields by name, in their order."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read a row.

        Raises:
            KeyError: a field is missing, as in results of another version.
        """
        return cls(**{field.name: row[field.name] for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepRow(Record):
    """A training step at one setting on one device.

    Attributes:
        device: name in the catalogue.
        precision: fp32 or mixed.
        seconds: length of the utterances.
        plan_bytes: memory by the compiler's plan, or by the fit between plans; None where no plan is kept.
        compiled: whether `plan_bytes` is a compiled plan; None without one.
        step_seconds: time of a step; None where it is unknown.
        time_by: printed, measured or modelled; None where the time is unknown.
    """

    device: str
    model: str
    method: str
    precision: str
    batch: int
    seconds: float
    plan_bytes: float | None
    compiled: bool | None
    verdict: Verdict
    step_seconds: float | None
    time_by: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRow(StepRow):
    """A step, and what a whole federated run of such steps takes; None where a step's time is unknown.

    Attributes:
        client_epoch_hours: one pass over a client's audio.
        run_days: all rounds.
        joules_per_step, client_run_kwh: energy at the device's highest power; None where that is unknown.
    """

    client_epoch_hours: float | None
    run_days: float | None
    joules_per_step: float | None
    client_run_kwh: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceVerdict(Record):
    """A device's capacity over base's demand, criterion by criterion: one or more is enough; None is unknown.

    Attributes:
        compute: speed of a step of batch 4 x 5.5 s; the A40's is one.
        memory, memory_remat, memory_exact: usable over needed bytes for batch 8 x 12 s, by method.
        bytes: a client's raw audio over what its rounds move.
        energy: joules of the A40 over this device's for the same step.
        errors: criterion -> relative error of its ratio; a ratio that is closer to one is borderline.
    """

    device: str
    title: str
    year: int | None
    compute: float | None
    memory: float | None
    memory_remat: float | None
    memory_exact: float | None
    bytes: float | None
    energy: float | None
    errors: dict[str, float]

    def ratio(self, criterion: str) -> float | None:
        """Look up the ratio of a criterion."""
        return getattr(self, criterion)
