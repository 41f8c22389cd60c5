"""Model the seconds of a training step on a device that is not here, by a roofline with four fitted numbers.

    seconds = factor x (operations / (share x peak) + traffic x bytes / bandwidth + fixed)

`share` of the peak rate is one number for accelerators and one for CPUs. `traffic` is the share of the bytes
of all operations, unfused, that is really moved. `fixed` is the time of a step on an accelerator that does
not depend on its size (launches, work of the host). These four numbers are fitted over devices. `factor`
belongs to a device: one measurement gives it, and it is one without a measurement.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from profiling.device import Device, Precision

# Weights of residuals in logarithms. An error of 0.1 in a cell, of 0.2 in a device's factor and of 1 in an
# efficiency's distance from its start weigh the same.
_FACTOR_WEIGHT, _PRIOR_WEIGHT = 0.5, 0.1


class Work(NamedTuple):
    """Work of a step, as `flops` and `traffic` count it."""

    flops: float
    moved_bytes: float


@dataclasses.dataclass(frozen=True)
class Efficiencies:
    """The four fitted numbers.

    Attributes:
        accelerator_share, processor_share: share of the peak rate that products reach.
        traffic: bytes moved over the bytes that unfused operations would move, at full bandwidth.
        fixed_seconds: seconds of a step on an accelerator that do not depend on its size.
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
        """Model the seconds of a step; None where the device's rate or bandwidth is unknown.

        Args:
            device: the device; its factor is looked up by its title and is 1 for an unknown title.
            precision: precision whose peak rate counts.
            work: operations and bytes of the step.
        """
        plain = uncalibrated_seconds(self.efficiencies, device, precision, work)
        return None if plain is None else self.factors.get(device.title, 1.0) * plain

    def calibrated(self, cell: Cell) -> "StepTimeModel":
        """Return a model with a device's factor from one measurement.

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
    """Model the seconds of a step by the data sheet alone; None where a rate is missing.

    Args:
        efficiencies: result of `fit`, or START.
        device: a device of the catalogue, or `this_machine.this_machine()`.
        precision: precision whose peak rate counts.
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
    """Fit efficiencies and factors by least squares on logarithms, with factors near one.

    Args:
        cells: measured steps of one or more devices, whose rates are known.

    Raises:
        ValueError: there are no cells, or a device's rate is unknown.
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
        cells: measured steps of two or more devices.
        calibrate_on: name of the cell that gives the left-out device's factor; every device has it.

    Returns:
        (cell, predicted seconds) for all cells except the calibrating ones.
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
    """Return the relative errors of predictions, with their signs."""
    return np.array([seconds / cell.seconds - 1.0 for cell, seconds in predicted])


def _to_free(efficiencies: Efficiencies) -> np.ndarray:
    """Map efficiencies to any real numbers: shares of a peak stay below one, the others above zero."""
    shares = [efficiencies.accelerator_share, efficiencies.processor_share]
    return np.log([1 / share - 1 for share in shares] + [efficiencies.traffic, efficiencies.fixed_seconds])


def _model(free: np.ndarray, titles: Sequence[str]) -> StepTimeModel:
    accelerator, processor, traffic, fixed = (float(value) for value in np.exp(free[:4]))
    return StepTimeModel(
        Efficiencies(1 / (1 + accelerator), 1 / (1 + processor), traffic, fixed),
        {title: math.exp(value) for title, value in zip(titles, free[4:], strict=True)},
    )
