"""Shapes, first parameters and batches of the toy model. Needs only NumPy.

The model has three strided convolutions and two transformer layers, and does regression on random frames. It
is so small that a framework's own share of a step shows.
"""

import numpy as np

SAMPLES, DIM, HEADS, FEED_FORWARD, LAYERS, TARGETS = 3200, 64, 4, 256, 2, 32
CONVOLUTIONS = ((10, 5), (8, 4), (4, 2))  # taps, stride
BATCH, STEPS, LEARNING_RATE = 4, 4, 0.05


def frames() -> int:
    """Return the frames of a row."""
    count = SAMPLES
    for taps, stride in CONVOLUTIONS:
        count = (count - taps) // stride + 1
    return count


def parameters() -> dict[str, np.ndarray]:
    """Draw convolutions [tap, channel, out] and matrices [in, out]."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)

    found, channels = {}, 1
    for index, (taps, _) in enumerate(CONVOLUTIONS):
        found[f"conv{index}"] = draw(taps, channels, DIM)
        channels = DIM
    for layer in range(LAYERS):
        for name in ("query", "key", "value", "out"):
            found[f"{name}{layer}"] = draw(DIM, DIM)
        found[f"up{layer}"] = draw(DIM, FEED_FORWARD)
        found[f"down{layer}"] = draw(FEED_FORWARD, DIM)
    found["head"] = draw(DIM, TARGETS)
    return found


def batches(clients: int) -> dict[str, np.ndarray]:
    """Draw waveform [client, step, row, sample] and target [client, step, row, frame, target]."""
    rng = np.random.default_rng(1)
    shape = (clients, STEPS, BATCH)
    return {
        "waveform": rng.standard_normal((*shape, SAMPLES)).astype(np.float32),
        "target": (0.1 * rng.standard_normal((*shape, frames(), TARGETS))).astype(np.float32),
    }
