"""What Gao et al. printed (Interspeech 2022, arXiv 2204.02804); results are set beside it."""

# Table 1: million parameters, and GFLOPs of a forward pass at 5.5 s and batch 1, by model and module.
TABLE_1 = {
    "base": {
        "cnn_encoder": (4.60, 27.20),
        "transformer": (89.78, 49.16),
        "quantization": (0.41, 0.32),
        "total": (94.79, 76.68),
    },
    "large": {
        "cnn_encoder": (4.73, 27.28),
        "transformer": (310.70, 170.16),
        "quantization": (0.57, 0.94),
        "total": (316.00, 198.32),
    },
}
# Section 3.1: Transformer / CNN encoder, parameters and FLOPs.
RATIOS = {"base": (19.5, 1.81), "large": (65.7, 6.24)}
TABLE_1_SECONDS = 5.5
# Section 3.1 and Figure 2: peak of base in fp32, by (batch, seconds).
TRAINING_BYTES = {(4, 5.5): 2.54e9, (8, 12.0): 9.89e9}


def training_bytes(model: str, precision: str, batch: int, seconds: float) -> float | None:
    """The printed peak of a setting, or None where none is printed."""
    return TRAINING_BYTES.get((batch, seconds)) if (model, precision) == ("base", "fp32") else None
