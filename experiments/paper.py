"""Numbers that Gao et al. print (Interspeech 2022, arXiv 2204.02804), to compare results with."""

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
# Section 3.1: Transformer over CNN encoder, in parameters and in FLOPs.
RATIOS = {"base": (19.5, 1.81), "large": (65.7, 6.24)}
TABLE_1_SECONDS = 5.5
# Section 3.1 and Figure 2: peak of base in fp32, in bytes, by (batch, seconds).
TRAINING_BYTES = {(4, 5.5): 2.54e9, (8, 12.0): 9.89e9}


def training_bytes(model: str, precision: str, batch: int, seconds: float) -> float | None:
    """Look up the printed peak of a setting in bytes; None where the paper prints none."""
    return TRAINING_BYTES.get((batch, seconds)) if (model, precision) == ("base", "fp32") else None


# Table 2: seconds of a training step at 5.5 s, by device and (model, batch, precision); OOM where the device
# ran out of memory. A dash in the paper has no entry. The paper's mixed precision is fp32 and fp16.
OOM = "OOM"
MIXED = "fp16"
TABLE_2_SECONDS = 5.5
TABLE_2: dict[str, dict[tuple[str, int, str], float | str]] = {
    "a40": {
        ("base", 1, "fp32"): 0.12,
        ("base", 1, MIXED): 0.11,
        ("large", 1, "fp32"): 0.23,
        ("large", 1, MIXED): 0.21,
        ("base", 4, "fp32"): 0.27,
        ("base", 4, MIXED): 0.21,
        ("large", 4, "fp32"): 0.43,
        ("large", 4, MIXED): 0.42,
    },
    "macbook-2019": {
        ("base", 1, "fp32"): 3.76,
        ("large", 1, "fp32"): 9.05,
        ("base", 4, "fp32"): 12.83,
        ("large", 4, "fp32"): 33.66,
    },
    "rpi-4": {
        ("base", 1, "fp32"): 16.60,
        ("large", 1, "fp32"): OOM,
        ("base", 4, "fp32"): 53.26,
        ("large", 4, "fp32"): OOM,
    },
    "xavier-agx": {
        ("base", 1, "fp32"): 0.38,
        ("base", 1, MIXED): 0.43,
        ("large", 1, "fp32"): 0.88,
        ("large", 1, MIXED): 0.87,
        ("base", 4, "fp32"): 1.08,
        ("base", 4, MIXED): 0.82,
        ("large", 4, "fp32"): OOM,
        ("large", 4, MIXED): 1.72,
    },
    "xavier-nx": {
        ("base", 1, "fp32"): 0.67,
        ("base", 1, MIXED): 0.61,
        ("large", 1, "fp32"): OOM,
        ("large", 1, MIXED): OOM,
        ("base", 4, "fp32"): 1.78,
        ("base", 4, MIXED): 1.14,
        ("large", 4, "fp32"): OOM,
        ("large", 4, MIXED): OOM,
    },
}
# Section 3.3: share of the time per sequence that batch 4 saves against batch 1, base in fp32.
SEQUENCE_GAINS = {"macbook-2019": 0.15, "rpi-4": 0.20, "xavier-agx": 0.29, "xavier-nx": 0.33}
# Common Voice Italian 7.0, by its release statistics: validated clips and hours, clips of a ten-client share.
VALIDATED_CLIPS, VALIDATED_HOURS = 194_732, 288.82
TEN_CLIENT_CLIPS = 19_473
# Section 3.3: days of the whole run on the A40.
TOTAL_DAYS_ON_A40 = 14.0
# Section 4.1: months in which compute doubles, the year of the forecast, the year of the measurements.
DOUBLING_MONTHS, PREDICTED_YEAR, PAPER_YEAR = 18.0, 2027, 2022
# Section 3.2, in seconds: clips of keyword spotting; released models train on longer clips than the latter.
KEYWORD_SECONDS, RELEASED_MODELS_SECONDS = (1.0, 3.0), 15.0
