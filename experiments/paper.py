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
