"""Operations and bytes of a training step as the step-time model takes them, traced once a setting."""

import functools
from typing import Literal

import numpy as np

from experiments import training_step
from experiments.training_step import StepSettings
from profiling import flops
from profiling.devices import Device
from profiling.step_time import Work
from profiling.traffic import traffic
from w2v_jax.platforms import lowering_for

Lowered = Literal["cpu", "gpu"]


def step_work(settings: StepSettings, device: Device) -> Work:
    """What a step does on a device's kind of processor; nothing is run."""
    return _work(settings, "cpu" if device.processor == "cpu" else "gpu")


@functools.cache
def _work(settings: StepSettings, platform: Lowered) -> Work:
    with lowering_for(platform):
        step = training_step.build(settings)
        counted = flops.count(step.function, *step.arguments)
        moved = traffic(step.function, *step.arguments)
    return Work(counted.total.flops, sum(row.unfused for row in moved.rows.values()))


class WorkSurface:
    """Work of a step over batches and lengths: `a + batch x (b + c seconds + d seconds^2)`, from four.

    Operations and bytes grow so, but for frames that are whole numbers: closer than a hundredth from 1 s on.
    """

    POINTS = ((1, 2.0), (2, 2.0), (1, 8.0), (1, 20.0))

    def __init__(self, model: str, precision: str, method: str, platform: Lowered):
        settings = [
            StepSettings(model=model, precision=precision, method=method, batch=batch, seconds=seconds)  # type: ignore[arg-type]  # plain words
            for batch, seconds in self.POINTS
        ]
        terms = np.array([self._terms(*point) for point in self.POINTS])
        self._coefficients = np.linalg.solve(terms, np.array([_work(s, platform) for s in settings], float))

    def __call__(self, batch: int, seconds: float) -> Work:
        """The work of one step."""
        return Work(*(float(value) for value in self._terms(batch, seconds) @ self._coefficients))

    @staticmethod
    def _terms(batch: int, seconds: float) -> np.ndarray:
        return np.array([1.0, batch, batch * seconds, batch * seconds**2])


@functools.cache
def surface(model: str, precision: str, method: str, platform: Lowered) -> WorkSurface:
    """The surface of these settings, made once."""
    return WorkSurface(model, precision, method, platform)
