"""First parameters and batches of a model of products alone, which vmap runs well. Needs only NumPy."""

import itertools

import numpy as np

WIDTHS = (64, 128, 128, 10)
BATCH, STEPS, LEARNING_RATE = 16, 8, 0.05


def parameters() -> dict[str, np.ndarray]:
    """Draw the matrices, each [in, out]."""
    rng = np.random.default_rng(0)
    return {
        f"layer{index}": (rng.standard_normal((width, out)) / np.sqrt(width)).astype(np.float32)
        for index, (width, out) in enumerate(itertools.pairwise(WIDTHS))
    }


def batches(clients: int) -> dict[str, np.ndarray]:
    """Draw x [client, step, row, in] and target [client, step, row, out]."""
    rng = np.random.default_rng(1)
    shape = (clients, STEPS, BATCH)
    return {
        "x": rng.standard_normal((*shape, WIDTHS[0])).astype(np.float32),
        "target": rng.standard_normal((*shape, WIDTHS[-1])).astype(np.float32),
    }
