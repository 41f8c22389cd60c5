"""Reference bands: how good runs that are known to be healthy were after so many updates."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from experiments.doctor.curves import Curves

Measure = Literal["accuracy", "accuracy over control"]


@dataclasses.dataclass(frozen=True)
class Band:
    """A measure over updates, with its spread over seeds or runs.

    Attributes:
        source: whose runs these are.
        measure: the held-out accuracy, or its multiple of the control's (see runs.tasks).
        comparable: whether a run that lies below has a fault; else speech and batches matter more.
        updates: where the band has a point, rising.
        means: over runs.
        spreads: standard deviations over runs.
    """

    source: str
    measure: Measure
    comparable: bool
    updates: Sequence[float]
    means: Sequence[float]
    spreads: Sequence[float]

    def at(self, updates: float) -> tuple[float, float] | None:
        """Interpolate (mean, spread) linearly; None outside the band's updates."""
        if not self.updates[0] <= updates <= self.updates[-1]:
            return None
        right = max(1, next(i for i, at in enumerate(self.updates) if updates <= at))
        left = right - 1
        part = (updates - self.updates[left]) / (self.updates[right] - self.updates[left])
        mean, spread = ((1 - part) * held[left] + part * held[right] for held in (self.means, self.spreads))
        return mean, spread


# NVIDIA's DeepLearningExamples: pretext accuracy every 50,000 updates. The spread is published at both ends;
# between them it is taken to change evenly.
BASE = Band(
    source="wav2vec 2.0 base with 1.6 h of LibriSpeech an update (NVIDIA DeepLearningExamples, 8 seeds)",
    measure="accuracy",
    comparable=True,
    updates=range(50_000, 400_001, 50_000),
    means=(0.491, 0.537, 0.564, 0.580, 0.599, 0.610, 0.619, 0.629),
    spreads=[0.011 - 0.004 * step / 7 for step in range(8)],
)
# docs/results/pretraining: tiny, ten and a hundred clients, two rules of averaging, one seed each.
TINY_FEDERATED = Band(
    source="our own runs of tiny with ten or a hundred clients (speechocean762, 4 runs)",
    measure="accuracy over control",
    comparable=False,
    updates=(50, 100, 200, 300, 400, 500, 600, 800, 1000),
    means=(1.48, 1.78, 2.47, 2.94, 3.23, 3.40, 3.53, 3.96, 3.99),
    spreads=(0.01, 0.22, 0.08, 0.06, 0.03, 0.15, 0.21, 0.20, 0.20),
)
# The runs of docs/results/representations: 10 rounds of 40 steps of 4 crops of 1 s, evaluated after rounds 5
# and 10. tests/experiments/doctor/representations.json keeps their curves.
ARABIC = "with ten clients, 10 rounds of 40 steps of 4 crops (Arabic speech commands, 5 seeds)"
BEST_RQ_TINY_FEDERATED = Band(
    source=f"our own runs of best-rq-tiny {ARABIC}",
    measure="accuracy over control",
    comparable=False,
    updates=(200, 400),
    means=(1.77, 1.91),
    spreads=(0.06, 0.05),
)
LOG_MEL_TINY_FEDERATED = Band(
    source=f"our own runs of log-mel-tiny {ARABIC}",
    measure="accuracy over control",
    comparable=False,
    updates=(200, 400),
    means=(2.41, 2.63),
    spreads=(0.16, 0.20),
)
BANDS = {
    ("base", False): BASE,
    ("base", True): BASE,
    ("tiny", True): TINY_FEDERATED,
    ("best-rq-tiny", True): BEST_RQ_TINY_FEDERATED,
    ("log-mel-tiny", True): LOG_MEL_TINY_FEDERATED,
}


def band_of(curves: Curves) -> Band | None:
    """Find the band of a run of pre-training; None for models that no band is known for."""
    if not curves.pretrains or curves.unit != "updates" or curves.size is None:
        return None
    return BANDS.get((curves.size, curves.federated))


def measured(curves: Curves, measure: Measure) -> tuple[list[float], list[float]]:
    """Collect (updates, values) of a band's measure in a run."""
    if measure == "accuracy over control":
        held = [
            (p["step"], p["heldout_accuracy"] / p["control"])
            for p in curves.points
            if p.get("control") and "heldout_accuracy" in p
        ]
        return [at for at, _ in held], [value for _, value in held]
    return curves.series("heldout_accuracy" if curves.values("heldout_accuracy") else "accuracy")


def band_position(curves: Curves) -> tuple[float, float, float] | None:
    """Find (value of the run, mean of the band, its spread) at the run's last value; None without a band."""
    if (band := band_of(curves)) is None:
        return None
    steps, values = measured(curves, band.measure)
    if not steps or (held := band.at(steps[-1])) is None:
        return None
    return values[-1], *held


def position_note(curves: Curves) -> str | None:
    """Say in a sentence where a run lies beside its band; None without a band at its last value."""
    compared, band = band_position(curves), band_of(curves)
    if compared is None or band is None:
        return None
    value, mean, spread = compared
    caution = "" if band.comparable else " Other speech and batches move these numbers."
    return (
        f"The {band.measure} is {value:.3g}; {band.source} had {mean:.3g} ± {spread:.2g} after as many "
        f"updates.{caution}"
    )
