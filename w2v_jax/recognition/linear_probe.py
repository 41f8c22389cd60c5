"""Linear probes: ridge regression to one-hot classes, with the penalty that does best on other clips."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.linalg

# Shares of the mean variance of a standardised feature, which is 1.
PENALTIES = tuple(float(10.0**power) for power in np.arange(-3.0, 3.5))


class Standard(NamedTuple):
    """Mean and standard deviation of every feature, by which `apply` standardises."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Standard":
        """Measure training clips, [clip, feature]; a constant feature keeps a deviation of 1."""
        deviation = features.std(0, dtype=np.float64)
        return cls(features.mean(0, dtype=np.float64), np.where(deviation > 1e-8, deviation, 1.0))

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Standardise clips, [clip, feature]; float64."""
        return (features - self.mean) / self.deviation


class LinearProbe(NamedTuple):
    """A linear classifier of clips.

    Attributes:
        standard: standardises the features.
        weights: float64 [feature, class].
        bias: float64 [class].
        penalty: the penalty that was chosen.
        dev_accuracy: share of the clips that chose the penalty which the probe classifies rightly.
    """

    standard: Standard
    weights: np.ndarray
    bias: np.ndarray
    penalty: float
    dev_accuracy: float

    def classify(self, features: np.ndarray) -> np.ndarray:
        """Find the class of every clip, int64 [clip]."""
        return (self.standard.apply(features) @ self.weights + self.bias).argmax(1)


def ridge_probe(
    train: tuple[np.ndarray, np.ndarray], dev: tuple[np.ndarray, np.ndarray], num_classes: int
) -> LinearProbe:
    """Fit a linear probe.

    Scores are regressed on classes as one-hot vectors, by least squares with a penalty on the squared
    weights. The penalty is the one with the highest accuracy on `dev`; of several, the largest.

    Args:
        train: features, [clip, feature], and classes, int [clip].
        dev: the same of other clips.
        num_classes: how many classes there are.
    """
    standard = Standard.of(train[0])
    features, held = standard.apply(train[0]), standard.apply(dev[0])
    one_hot = np.eye(num_classes)[train[1]]
    bias = one_hot.mean(0)
    found: LinearProbe | None = None
    for penalty, weights in _solutions(features, one_hot - bias):
        accuracy = float(((held @ weights + bias).argmax(1) == dev[1]).mean())
        if found is None or accuracy >= found.dev_accuracy:
            found = LinearProbe(standard, weights, bias, penalty, accuracy)
    assert found is not None
    return found


def _solutions(features: np.ndarray, targets: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Give each penalty with its weights, by the smaller of the two systems of equations."""
    clips, size = features.shape
    dual = clips < size
    gram = features @ features.T if dual else features.T @ features
    right = targets if dual else features.T @ targets
    for penalty in PENALTIES:
        system = gram.copy()
        system[np.diag_indices_from(system)] += penalty * clips
        solved = scipy.linalg.solve(system, right, assume_a="pos", overwrite_a=True, check_finite=False)
        yield penalty, features.T @ solved if dual else solved
