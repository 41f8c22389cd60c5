"""The share of the devices' peak rate that training reaches (model FLOP utilisation)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.runs.metric_columns import RATE_SHARE
from profiling import flops, runner
from profiling.device import Precision
from profiling.devices import DEVICES, named_like
from w2v_jax import platforms
from w2v_jax.objective.objective import Objective


@dataclasses.dataclass(frozen=True)
class PeakRate:
    """The peak rate of the devices of a run.

    Attributes:
        flops: operations a second of all devices together; None where the catalogue lacks it.
        device: the accelerator, for readers; None for a CPU, of which few have a known rate.
    """

    flops: float | None
    device: str | None


def peak_rate(precision: Precision, devices: int) -> PeakRate:
    """Look up the peak rate of this machine's devices in the catalogue (profiling.devices).

    Args:
        precision: of matrix products.
        devices: how many train; the virtual devices of a CPU count as one.
    """
    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    named = runner.describe_board()["model"] if on_cpu else device.device_kind
    known = DEVICES.get(named_like(named or "") or "")
    accelerator = None if on_cpu else named
    # A board's CPU does not have the rate of its GPU.
    if known is None or known.processor != {"cuda": "gpu"}.get(device.platform, device.platform):
        return PeakRate(None, accelerator)
    peak = known.peak_flops.get(precision)
    return PeakRate(None if peak is None else peak * (1 if on_cpu else devices), accelerator)


class RateShare:
    """Computes the share of the peak rate that training reached between two lines of metrics.jsonl.

    Operations are the multiply-adds, two each, of the products and convolutions of a training step, as the
    plain step is traced: padding within a batch counts, computing activations again does not. Each shape of
    batch is traced once, where the peak rate is known; nothing is compiled.
    """

    def __init__(self, objective: Callable[[], Objective], peak: PeakRate):
        """Begin without operations.

        Args:
            objective: makes the objective of the plain step.
            peak: of the devices.
        """
        self._objective, self._peak = objective, peak
        self._products: dict[Any, int] = {}  # of a step, by shapes of the batch
        self._done = 0

    @property
    def note(self) -> str | None:
        """The line that says that an accelerator's share is not known; None for others."""
        if self._peak.flops is not None or self._peak.device is None:
            return None
        return (
            f"the share of the device's rate is left out: no peak rate is known for {self._peak.device} in "
            "this precision"
        )

    def add(self, batch: Any, steps: int = 1) -> None:
        """Count the operations of training steps on a batch, or on the shapes of one."""
        if self._peak.flops is None:
            return
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes not in self._products:
            self._products[shapes] = step_products(self._objective, batch)
        self._done += steps * self._products[shapes]

    def columns(self, seconds: float) -> dict[str, float]:
        """Make the column of the steps since the last call, which took so many seconds; none if unknown."""
        done, self._done = self._done, 0
        if self._peak.flops is None or seconds <= 0:
            return {}
        return {RATE_SHARE: done / seconds / self._peak.flops}


def step_products(objective: Callable[[], Objective], batch: Any) -> int:
    """Count the operations of products in a training step by tracing it.

    Args:
        objective: makes the objective.
        batch: a batch, or its shapes.
    """
    with platforms.lowering_for("cpu"):  # the plain form, whatever the device computes
        made = objective()
        key = jax.eval_shape(lambda: jax.random.key(0))
        parameters, state = jax.eval_shape(made.init, key)
        report = flops.count(made.value_and_grad, parameters, state, batch, key, jnp.int32(0))
    return report.total.products
