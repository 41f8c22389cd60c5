"""Memory and operations of a step against the length of its utterances, for Figures 3 and 4."""

from collections.abc import Sequence
from typing import Any

import numpy as np

SECONDS = (1.0, 2.0, 3.0, 5.5, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0)
LONGEST_SECONDS = 600.0
MODELS = ("base", "large")


def memory_row(model: str, seconds: float, batch: int, precision: str) -> dict[str, Any]:
    """Account for the memory of one step, in bytes, parameters included.

    Args:
        model: preset.
        seconds: length of each utterance.
        batch: utterances.
        precision: fp32 or mixed. mixed: half-precision products in the eager accountings, bf16 in ours.
    """
    from experiments.costs.step import module_costs, training_step
    from profiling import residuals

    settings = training_step.StepSettings(
        model=model, seconds=seconds, batch=batch, precision="bf16" if precision == "mixed" else "fp32"
    )
    step = training_step.build(settings)
    parameters = training_step.tree_bytes(step.parameters)
    kept = residuals.residuals(step.loss, step.parameters, *step.arguments[1:]).activations
    eager = {
        backend: sum(
            module_costs.eager_bytes(
                settings.config,
                batch,
                settings.samples,
                "mixed" if precision == "mixed" else "fp32",
                backend,
            ).values()
        )
        for backend in ("cpu", "cuda")
    }
    return {
        "model": model,
        "seconds": seconds,
        "batch": batch,
        "precision": precision,
        "parameters_bytes": parameters,
        "autograd_bytes": eager["cpu"] + parameters,
        "autograd_cuda_bytes": eager["cuda"] + parameters,
        "residual_bytes": kept + parameters,
    }


def flops_row(model: str, seconds: float, batch: int) -> dict[str, int]:
    """Count forward operations under both conventions."""
    from experiments.costs.step.paper_convention import module_costs
    from w2v_jax.config import PRESETS

    total = module_costs(PRESETS[model], seconds, batch)["total"]
    return {"flops_paper": total["flops_paper"], "flops_full": total["flops_full"]}


def fit(seconds: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """Fit value = constant + slope x + quadratic x^2 over lengths x by least squares.

    Returns:
        The coefficients, in units of the values, per second and per second^2; and the quadratic term's share
        of the value at the longest length.
    """
    quadratic, slope, constant = np.polyfit(seconds, values, 2)
    longest = max(seconds)
    whole = constant + slope * longest + quadratic * longest**2
    return {
        "constant": float(constant),
        "slope": float(slope),
        "quadratic": float(quadratic),
        "quadratic_share": float(quadratic * longest**2 / whole),
    }
