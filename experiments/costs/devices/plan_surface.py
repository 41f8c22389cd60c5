"""Memory of a training step by the compilers' plans that are kept (experiments/costs/devices/plan_grid.py).

At a kept point the plan is the compiler's own. Between points it is a fit: `a + batch x (b + c seconds + d
seconds^2)`, and `a + b seconds` for exact steps. `fit_errors` measures how far such a fit is from a plan that
it has not seen.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from experiments.costs.devices.plan_grid import KEPT, OPTIMIZER, PRECISIONS
from experiments.costs.devices.records import PLAN_ERROR
from experiments.process.files import read_json
from profiling import feasibility
from profiling.device import Device
from w2v_jax.errors import UserError


class Planned(NamedTuple):
    """Memory of a step.

    Attributes:
        bytes: arguments, outputs and temporaries.
        compiled: True for a compiler's own plan, False for a fit.
        error: relative error of `bytes`: PLAN_ERROR, and for a fit also the error of the fit.
    """

    bytes: float
    compiled: bool
    error: float


@functools.cache
def kept() -> dict[str, Any]:
    """Read the file of plans.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        found = read_json(KEPT)
        assert isinstance(found["rows"], list)
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        raise UserError(
            f"{KEPT.name} holds no plans: compile them with w2v-jax plans grid --out {KEPT.name}"
        ) from None
    return found


def plan(
    device: Device, model: str, method: str, precision: str, batch: int, seconds: float
) -> Planned | None:
    """Plan the memory of a step with AdamW on a device; None where no compiler's plan stands for the device.

    Args:
        device: the device; `device.plan` names the compiler.
        model: preset.
        method: one of METHODS.
        precision: fp32, or any other name for the 16-bit precision that the plans of the compiler have.
        batch: utterances.
        seconds: length of each utterance.
    """
    target = device.plan
    if target is None:
        return None
    if precision != "fp32":
        halves = [name for name in PRECISIONS[target] if name != "fp32"]
        if not halves:
            return None
        precision = halves[0]
    key = (target, model, method, precision)
    points, coefficients = _surface(*key)
    if (batch, seconds) in points:
        return Planned(points[batch, seconds], True, PLAN_ERROR)
    if coefficients is None:
        return None
    return Planned(float(_terms(method, batch, seconds) @ coefficients), False, PLAN_ERROR + _fit_error(*key))


def judge(planned: Planned | None, usable: int | None) -> feasibility.Verdict:
    """Judge a plan against usable bytes: "borderline" inside the plan's error, "unknown" without a plan."""
    return feasibility.verdict(planned and planned.bytes, usable, planned.error if planned else 0.0)


@functools.cache
def _surface(target: str, model: str, method: str, precision: str) -> tuple[dict[Any, int], Any]:
    """Return the kept plans by (batch, seconds) and the coefficients of their fit, None for too few plans."""
    points = {
        (row["batch"], row["seconds"]): row["bytes"]
        for row in kept()["rows"]
        if (row["target"], row["model"], row["method"], row["precision"], row["optimizer"])
        == (target, model, method, precision, OPTIMIZER)
    }
    return points, _fit(method, points) if len(points) >= 4 else None


def _fit(method: str, points: dict[tuple[int, float], int]) -> np.ndarray:
    """Fit coefficients by least squares of relative errors, so that small and large steps count alike."""
    terms = np.array([_terms(method, *point) for point in points])
    sizes = np.array(list(points.values()), float)
    return np.linalg.lstsq(terms / sizes[:, None], np.ones(len(sizes)), rcond=None)[0]


def fit_errors() -> dict[str, float]:
    """Predict each kept plan from the others of its kind; return the largest relative error of each kind."""
    found: dict[str, float] = {}
    for row in kept()["rows"]:
        kind = (row["target"], row["model"], row["method"], row["precision"])
        points, _ = _surface(*kind)
        left_out = (row["batch"], row["seconds"])
        others = {point: size for point, size in points.items() if point != left_out}
        if len(others) >= 4:
            predicted = _terms(row["method"], *left_out) @ _fit(row["method"], others)
            name = ", ".join(kind)
            found[name] = max(found.get(name, 0.0), float(abs(predicted / row["bytes"] - 1.0)))
    return found


@functools.cache
def _fit_error(*kind: str) -> float:
    """Look up the fit's error of a kind; a kind with too few plans takes the largest of all."""
    errors = fit_errors()
    return errors.get(", ".join(kind), max(errors.values()))


def _terms(method: str, batch: int, seconds: float) -> np.ndarray:
    """Return the terms that a step's memory is linear in."""
    # An exact step takes one utterance at a time and keeps nothing quadratic; a batch adds a few megabytes.
    if method == "exact":
        return np.array([1.0, seconds])
    return np.array([1.0, batch, batch * seconds, batch * seconds**2])
