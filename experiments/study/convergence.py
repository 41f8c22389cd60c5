"""Updates and audio that a pre-training needs to come as far as the centralised one (Figure 1)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.report.statistics import over_seeds
from experiments.study.federated import Study
from experiments.study.federated_results import pretraining
from experiments.study.federated_scales import CENTRALISED, PRETRAINED

# Shares of the way from the untrained loss to the loss at which centralised training ends.
TARGET_SHARES = (0.25, 0.5, 0.75, 1.0)
AXES = ("updates", "audio_seconds")
Curve = dict[str, list[float]]


def fig1(study: Study) -> dict[str, Any]:
    """Collect curves, and updates and audio to reach each target, by seed: the content of fig1.json."""
    arms = {arm: pretraining(study, arm) for arm in PRETRAINED}
    curves = {arm: [run["curve"] for run in runs] for arm, runs in arms.items()}
    central = curves[CENTRALISED]
    return {
        "scale": study.scale_name,
        "settings": dataclasses.asdict(study.scale),
        "data": study.data,
        "seeds": study.seeds,
        "pretraining": arms,
        "targets": [
            {"share": share, "arms": {arm: _over_seeds(central, curves[arm], share) for arm in PRETRAINED}}
            for share in TARGET_SHARES
        ],
        "share_of_centralised_drop": {
            arm: over_seeds(
                [
                    _ratio(_drop(own), max(0.0, _drop(reference)))
                    for reference, own in zip(central, curves[arm], strict=True)
                ]
            )
            for arm in PRETRAINED
        },
    }


def _over_seeds(central: Sequence[Curve], own: Sequence[Curve], share: float) -> dict[str, Any]:
    """Summarise one arm and one target over seeds."""
    by_seed = [_reached(*pair, share) for pair in zip(central, own, strict=True)]
    names = (*AXES, *(f"{axis}_ratio" for axis in AXES), "code_perplexity")
    return {
        "by_seed": by_seed,
        "reached": sum(found["updates"] is not None for found in by_seed),
        **{name: over_seeds([found[name] for found in by_seed]) for name in names},
    }


def _reached(central: Curve, own: Curve, share: float) -> dict[str, float | None]:
    """Find where a curve reaches a share of the way of the centralised curve of its seed."""
    losses = central["loss"]
    # Rounding must not put the whole way below where it ends.
    target = max(losses[0] + share * (losses[-1] - losses[0]), losses[-1])
    # A centralised run that ends no better than it began gives nothing to reach.
    improves = losses[-1] < losses[0]
    reached, reference = (
        {axis: reached_for_good(curve[axis], curve["loss"], target) if improves else None for axis in AXES}
        for curve in (own, central)
    )
    codes = None
    if (audio := reached["audio_seconds"]) is not None:
        codes = float(np.interp(audio, own["audio_seconds"], own["code_perplexity"]))
    return {
        "target_loss": target,
        **reached,
        "code_perplexity": codes,
        **{f"{axis}_ratio": _ratio(reached[axis], reference[axis]) for axis in AXES},
    }


def reached_for_good(x: Sequence[float], loss: Sequence[float], target: float) -> float | None:
    """Find where a loss curve last comes down to a target; None if it ends above the target.

    A dip does not count: a contrastive loss falls for a while whenever few codes are in use.

    Args:
        x: rising places of the points, which straight lines join.
        loss: the loss at each place.
        target: a loss.
    """
    above = [index for index, value in enumerate(loss) if value > target]
    if not above:
        return float(x[0])
    last = above[-1]
    if last == len(loss) - 1:
        return None
    share = (loss[last] - target) / (loss[last] - loss[last + 1])
    return float(x[last] + share * (x[last + 1] - x[last]))


def _drop(curve: Curve) -> float:
    return curve["loss"][0] - curve["loss"][-1]


def _ratio(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference
