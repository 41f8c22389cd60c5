"""Measure how far clients' updates agree: norms and cosines, from the inner products of stacked updates."""

from typing import NamedTuple

import jax
import numpy as np

from fed.protocols import PyTree


class Divergence(NamedTuple):
    """Agreement of the updates of one round; float64, NaN where it is not defined.

    Attributes:
        norms: [client], Euclidean over all parameters.
        cosine_to_mean: [client], to the weighted mean update. A client with all the weight has cosine
            one, as it is its own mean.
        cosine_to_others: [client], to the unweighted mean of the other clients' updates.
        mean_norm: norm of the weighted mean update.
    """

    norms: np.ndarray
    cosine_to_mean: np.ndarray
    cosine_to_others: np.ndarray
    mean_norm: float


def divergence(updates: PyTree, weights: np.ndarray) -> Divergence:
    """Measure how far clients' updates agree.

    Args:
        updates: NumPy leaves [client, ...]. A client with a value that is not finite gets NaN for its
            results and is left out of those of the others.
        weights: [client], non-negative, as in the aggregation; they are not normalised here.
    """
    products, finite = inner_products(updates)
    weights = np.where(finite, np.asarray(weights, np.float64), 0.0)
    squares = np.diag(products)
    with_mean = products @ weights
    mean_square = float(weights @ with_mean)
    # The sum of the other clients' updates has the direction of their mean.
    with_others = products.sum(1) - squares
    others_square = products.sum() - 2 * products.sum(1) + squares

    def of_clients(values: np.ndarray) -> np.ndarray:
        return np.where(finite, values, np.nan)

    return Divergence(
        norms=of_clients(np.sqrt(squares)),
        cosine_to_mean=of_clients(_cosine(with_mean, squares, np.asarray(mean_square))),
        cosine_to_others=of_clients(_cosine(with_others, squares, others_square)),
        mean_norm=float(np.sqrt(max(mean_square, 0.0))),
    )


def inner_products(updates: PyTree) -> tuple[np.ndarray, np.ndarray]:
    """Compute inner products, float64 [client, client], and which clients are finite, bool [client].

    Rows and columns of clients that are not finite are zero. Only one leaf at a time is held in float64.
    """
    rows = [np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(updates)]
    finite = np.all([np.isfinite(row).all(1) for row in rows], axis=0)
    total = np.zeros((len(finite), len(finite)))
    for row in rows:
        values = np.where(finite[:, None], row, 0).astype(np.float64)
        total += values @ values.T
    return total, finite


def _cosine(product: np.ndarray, square: np.ndarray, other_square: np.ndarray) -> np.ndarray:
    """product / sqrt(square x other_square); NaN where a vector has no length."""
    # Differences of sums that should be zero leave rounding errors.
    scale = np.sqrt(np.maximum(square, 0.0) * np.maximum(other_square, 0.0))
    defined = scale > 1e-12 * np.max(square, initial=0.0)
    return np.where(defined, np.clip(product / np.where(defined, scale, 1.0), -1.0, 1.0), np.nan)
