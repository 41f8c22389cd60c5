"""Operations and bytes of a training step for the step-time model, traced once for each setting."""

import dataclasses
import functools
from typing import Literal

import numpy as np

from experiments.costs.step import training_step
from experiments.costs.step.training_step import StepSettings
from profiling import flops
from profiling.device import Device
from profiling.step_time import Work
from profiling.traffic import traffic
from w2v_jax.objective import accumulation
from w2v_jax.platforms import lowering_for

Lowered = Literal["cpu", "gpu"]


def step_work(settings: StepSettings, device: Device) -> Work:
    """Count the work of a step on a device's kind of processor; nothing is run."""
    return _work(settings, "cpu" if device.processor == "cpu" else "gpu")


@functools.cache
def _work(settings: StepSettings, platform: Lowered) -> Work:
    with lowering_for(platform):
        step = training_step.build(settings)
        counted = flops.count(step.function, *step.arguments)
        moved = traffic(step.function, *step.arguments)
    return Work(counted.total.flops, sum(row.unfused for row in moved.rows.values()))


class WorkSurface:
    """Interpolate the work of a step over batches and lengths: `a + batch x (b + c seconds + d seconds^2)`.

    Four traced steps give the coefficients. From 2 s on, the error is below one hundredth; it comes from
    frames and blocks, which are whole numbers. Separate fits cover micro-batches whose features are not kept
    and clips so long that feed-forward nets run in several blocks.
    """

    POINTS = ((1, 2.0), (2, 2.0), (1, 6.0), (1, 11.0))
    LONG_POINTS = ((1, 13.0), (2, 13.0), (1, 20.0), (1, 30.0))
    MANY = 200  # times as many utterances, so that features are not kept

    def __init__(self, model: str, precision: str, method: str, platform: Lowered):
        self._settings = StepSettings(
            model=model,
            precision=precision,  # type: ignore[arg-type]  # a plain word
            method=method,
            batch=1,
            seconds=1.0,
        )
        self._platform: Lowered = platform
        self._fits: dict[tuple[int, bool], np.ndarray] = {}

    def __call__(self, batch: int, seconds: float) -> Work:
        """Return the work of one step."""
        settings = dataclasses.replace(self._settings, batch=batch, seconds=seconds)
        config = settings.config
        kept = config.micro_batch is None or accumulation.keeps_features(config, batch, settings.samples)
        block = config.feed_forward_block_frames
        long = block is not None and config.num_frames(settings.samples) > block
        fit = self._fit(1 if kept else self.MANY, long)
        return Work(*(float(value) for value in self._terms(batch, seconds) @ fit))

    def _fit(self, times: int, long: bool) -> np.ndarray:
        if (times, long) not in self._fits:
            points = [
                (batch * times, seconds) for batch, seconds in (self.LONG_POINTS if long else self.POINTS)
            ]
            work = [
                _work(dataclasses.replace(self._settings, batch=batch, seconds=seconds), self._platform)
                for batch, seconds in points
            ]
            terms = np.array([self._terms(*point) for point in points])
            self._fits[times, long] = np.linalg.solve(terms, np.array(work, float))
        return self._fits[times, long]

    @staticmethod
    def _terms(batch: int, seconds: float) -> np.ndarray:
        return np.array([1.0, batch, batch * seconds, batch * seconds**2])


@functools.cache
def surface(model: str, precision: str, method: str, platform: Lowered) -> WorkSurface:
    """Return the surface of these settings, made once."""
    return WorkSurface(model, precision, method, platform)
