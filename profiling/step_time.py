"""Seconds of a training step on a device that is not here: a roofline with few numbers that are fitted.

    seconds = factor x (operations / (share x peak) + traffic x bytes / bandwidth + fixed)

`share` of the peak rate is one number for accelerators and one for CPUs; `traffic` is the share of the bytes
of all operations, unfused, that is really moved; `fixed` is what a step costs an accelerator whatever its
size (launches, the host's own work). These four are fitted over devices. `factor` is the device's own: one
measurement gives it, and without any it is one.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from profiling.devices import Device, Precision

# How far, in logarithms, a cell's error, a device's factor and an efficiency may be from zero, one and the
# start: 0.1, 0.2 and 1.
_FACTOR_WEIGHT, _PRIOR_WEIGHT = 0.5, 0.1


class Work(NamedTuple):
    """What a step does, from `flops` and `traffic`."""

    flops: float
    moved_bytes: float


@dataclasses.dataclass(frozen=True)
class Efficiencies:
    """What is fitted.

    Attributes:
        accelerator_share, processor_share: of the peak rate that products reach.
        traffic: bytes moved, as a share of what unfused operations would move, at full bandwidth.
        fixed_seconds: of a step on an accelerator.
    """

    accelerator_share: float
    processor_share: float
    traffic: float
    fixed_seconds: float


START = Efficiencies(accelerator_share=0.7, processor_share=0.3, traffic=1.0, fixed_seconds=0.03)


class Cell(NamedTuple):
    """One measured step."""

    name: str
    device: Device
    precision: Precision
    work: Work
    seconds: float


@dataclasses.dataclass(frozen=True)
class StepTimeModel:
    """Efficiencies, and the factor of each device that was measured, by its title."""

    efficiencies: Efficiencies
    factors: dict[str, float]

    def seconds(self, device: Device, precision: Precision, work: Work) -> float | None:
        """Seconds of a step; None where the device's rate or bandwidth is unknown.

        Args:
            device: its factor is looked up by its title; without one it is 1.
            precision: whose peak rate counts.
            work: operations and bytes of the step.
        """
        plain = uncalibrated_seconds(self.efficiencies, device, precision, work)
        return None if plain is None else self.factors.get(device.title, 1.0) * plain

    def calibrated(self, cell: Cell) -> "StepTimeModel":
        """With a device's factor from one measurement of it.

        Raises:
            ValueError: the device's rate or bandwidth is unknown.
        """
        plain = uncalibrated_seconds(self.efficiencies, cell.device, cell.precision, cell.work)
        if plain is None:
            raise ValueError(f"the rates of {cell.device.title} in {cell.precision} are not known")
        return StepTimeModel(self.efficiencies, self.factors | {cell.device.title: cell.seconds / plain})


def uncalibrated_seconds(
    efficiencies: Efficiencies, device: Device, precision: Precision, work: Work
) -> float | None:
    """Seconds of a step by the data sheet alone; None where it does not say enough.

    Args:
        efficiencies: of `fit`, or START.
        device: of the catalogue, or `here.this_machine()`.
        precision: whose peak rate counts.
        work: operations and bytes of the step.
    """
    peak = device.peak_flops.get(precision)
    if peak is None or device.bytes_per_second is None:
        return None
    on_cpu = device.processor == "cpu"
    share = efficiencies.processor_share if on_cpu else efficiencies.accelerator_share
    arithmetic = work.flops / (share * peak)
    moving = efficiencies.traffic * work.moved_bytes / device.bytes_per_second
    return arithmetic + moving + (0.0 if on_cpu else efficiencies.fixed_seconds)


def fit(cells: Sequence[Cell]) -> StepTimeModel:
    """Efficiencies and factors by least squares on logarithms, factors held near one.

    Args:
        cells: of one device or more, whose rates are known.

    Raises:
        ValueError: no cells, or a device's rate is unknown.
    """
    if not cells:
        raise ValueError("no measured steps to fit")
    titles = sorted({cell.device.title for cell in cells})
    start = _to_free(START)

    def residuals(free: np.ndarray) -> np.ndarray:
        model = _model(free, titles)
        errors = []
        for cell in cells:
            seconds = model.seconds(cell.device, cell.precision, cell.work)
            if seconds is None:
                raise ValueError(f"the rates of {cell.device.title} in {cell.precision} are not known")
            errors.append(math.log(seconds / cell.seconds))
        size = len(start)
        return np.concatenate([errors, _PRIOR_WEIGHT * (free[:size] - start), _FACTOR_WEIGHT * free[size:]])

    solution = least_squares(residuals, np.concatenate([start, np.zeros(len(titles))]))
    return _model(solution.x, titles)


def leave_one_device_out(cells: Sequence[Cell], calibrate_on: str) -> list[tuple[Cell, float]]:
    """Predict each device's cells from the other devices' and one of its own.

    Args:
        cells: of two devices or more.
        calibrate_on: name of the cell that gives the left-out device's factor; every device has it.

    Returns:
        (cell, predicted seconds) of all cells but the calibrating ones.
    """
    predicted = []
    for title in dict.fromkeys(cell.device.title for cell in cells):
        own = [cell for cell in cells if cell.device.title == title]
        others = fit([cell for cell in cells if cell.device.title != title])
        known = next(cell for cell in own if cell.name == calibrate_on)
        model = others.calibrated(known)
        for cell in own:
            if cell is not known:
                seconds = model.seconds(cell.device, cell.precision, cell.work)
                assert seconds is not None  # it could be calibrated
                predicted.append((cell, seconds))
    return predicted


def errors(predicted: Iterable[tuple[Cell, float]]) -> np.ndarray:
    """Relative errors, signed."""
    return np.array([seconds / cell.seconds - 1.0 for cell, seconds in predicted])


def _to_free(efficiencies: Efficiencies) -> np.ndarray:
    """Any real numbers: shares of a peak stay below one, the others above zero."""
    shares = [efficiencies.accelerator_share, efficiencies.processor_share]
    return np.log([1 / share - 1 for share in shares] + [efficiencies.traffic, efficiencies.fixed_seconds])


def _model(free: np.ndarray, titles: Sequence[str]) -> StepTimeModel:
    accelerator, processor, traffic, fixed = (float(value) for value in np.exp(free[:4]))
    return StepTimeModel(
        Efficiencies(1 / (1 + accelerator), 1 / (1 + processor), traffic, fixed),
        {title: math.exp(value) for title, value in zip(titles, free[4:], strict=True)},
    )
