"""Small models for tests: both variants, every part present."""

from w2v_jax.config import ModelConfig

SMALL = ModelConfig(
    conv_channels=(8, 8, 12),
    conv_kernels=(10, 3, 2),
    conv_strides=(5, 2, 2),
    hidden_dim=16,
    num_layers=2,
    num_heads=2,
    feed_forward_dim=32,
    positional_kernel=8,
    positional_groups=4,
    codebook_groups=2,
    codebook_entries=10,
    codevector_dim=8,
    projection_dim=8,
    mask_span=3,
    num_negatives=12,
    dropout=0.0,
    attention_dropout=0.0,
    input_dropout=0.0,
    feature_dropout=0.0,
    layer_drop=0.0,
)

SMALL_LAYER_NORM = SMALL.replace(
    feature_norm="layer",
    conv_bias=True,
    pre_norm=True,
    feature_penalty_weight=0.0,
    encoder_gradient_scale=1.0,
)

VARIANTS = {"group-norm": SMALL, "layer-norm": SMALL_LAYER_NORM}

# On log-mel frames of 20 ms; clips are longer than those of SMALL for as many frames.
LOG_MEL = {
    "front_end": "log-mel",
    "log_mel_bands": 10,
    "log_mel_stack": 2,
    "conv_channels": (),
    "conv_kernels": (),
    "conv_strides": (),
}
SMALL_LOG_MEL = SMALL.replace(**LOG_MEL)
SMALL_BEST_RQ = SMALL_LAYER_NORM.replace(
    **LOG_MEL,
    feature_norm="group",
    conv_bias=False,
    objective="best-rq",
    target_codebooks=2,
    target_entries=12,
    target_dim=4,
)

OBJECTIVES = {"wav2vec2": SMALL, "best-rq": SMALL_BEST_RQ, "wav2vec2-log-mel": SMALL_LOG_MEL}


def lengthened(samples: int, config: ModelConfig) -> int:
    """A clip's length in samples where SMALL's clip has `samples`: about as many frames."""
    return samples * config.frame_samples // SMALL.frame_samples if config.front_end == "log-mel" else samples
