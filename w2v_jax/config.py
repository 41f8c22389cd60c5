"""Model configurations and presets. Imports no jax, so that help texts stay fast."""

import dataclasses
import math
from typing import Any, Literal

SAMPLE_RATE_HZ = 16_000
LOG_MEL_WINDOW_SAMPLES, LOG_MEL_HOP_SAMPLES = 400, 160  # 25 ms every 10 ms

ConvolutionForm = Literal["lax", "product"]
# waveform: strided convolutions, which are trained. log-mel: spectra in mel bands, which are not.
FrontEnd = Literal["waveform", "log-mel"]
ObjectiveName = Literal["wav2vec2", "best-rq"]
PresetName = Literal[
    "tiny", "base", "large", "large-lv60", "log-mel-tiny", "log-mel-small",
    "best-rq-tiny", "best-rq-small", "best-rq-base",
]  # fmt: skip
# State beside the parameters: adamw two of their size, lion one, adafactor sums along axes, sgd none.
OptimizerName = Literal["adamw", "lion", "adafactor", "sgd"]


# The ranges of the numbers. Larger counts are mistakes in a file, and their arrays would fill the memory.
MOST, LARGEST = 100_000, 3e38  # of a count; of a number in fp32
_COUNTS = (
    "conv_channels", "conv_kernels", "conv_strides", "hidden_dim", "num_layers", "num_heads",
    "feed_forward_dim", "positional_kernel", "positional_groups", "codebook_groups", "codebook_entries",
    "codevector_dim", "projection_dim", "mask_span", "num_negatives", "scan_unroll", "log_mel_bands",
    "log_mel_stack", "target_codebooks", "target_entries", "target_dim",
)  # fmt: skip
_SHARES = (
    "mask_probability", "gumbel_temperature_decay", "dropout", "attention_dropout", "activation_dropout",
    "input_dropout", "feature_dropout", "layer_drop",
)  # fmt: skip
_ABOVE_ZERO = ("gumbel_temperature_start", "gumbel_temperature_end", "contrastive_temperature")
_FROM_ZERO = (
    "diversity_weight", "feature_penalty_weight", "encoder_gradient_scale", "transformer_initial_std",
)  # fmt: skip
_COUNTS_FROM_ZERO = {
    "mask_min_spans": MOST, "diversity_warmup_updates": 2**31 - 1, "target_seed": 2**31 - 1,
}  # fmt: skip


def range_fault(name: str, value: Any) -> str | None:
    """Say what a field of `ModelConfig` must be if a number is outside its range; None if it is inside.

    Args:
        name: the field; one without a range is always inside.
        value: a number, or a sequence of them, of which each must be inside.
    """
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if name in _COUNTS:
        return None if values and all(1 <= v <= MOST for v in values) else f"from 1 to {MOST}"
    if (most := _COUNTS_FROM_ZERO.get(name)) is not None:
        return None if all(0 <= v <= most for v in values) else f"from 0 to {most}"
    if name in _SHARES:
        return None if all(0 <= v <= 1 for v in values) else "from 0 to 1"
    if name in _ABOVE_ZERO:
        return None if all(0 < v <= LARGEST for v in values) else "a finite number above 0"
    if name in _FROM_ZERO:
        return None if all(0 <= v <= LARGEST for v in values) else "a finite number, 0 or more"
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and training settings of one pre-training model.

    Defaults are those of wav2vec 2.0's base model (fairseq's librispeech recipe). Lengths are in frames
    (20 ms of a waveform front end, 10 ms x log_mel_stack of log-mel) unless a name says otherwise;
    probabilities are shares between 0 and 1.
    """

    # The task: wav2vec2 tells a frame's own code from others'; best-rq names the codes of a frame.
    objective: ObjectiveName = "wav2vec2"
    # Front end: log-mel has no convolutions, and stacks neighbouring windows of 10 ms to make a frame.
    front_end: FrontEnd = "waveform"
    log_mel_bands: int = 80
    log_mel_stack: int = 4

    # Feature encoder: waveform -> latent frames.
    conv_channels: tuple[int, ...] = (512,) * 7
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    feature_norm: Literal["group", "layer"] = "group"
    masked_group_norm: bool = False
    normalise_waveform: bool = False
    # Context network.
    hidden_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    feed_forward_dim: int = 3072
    positional_kernel: int = 128
    positional_groups: int = 16
    pre_norm: bool = False
    transformer_initial_std: float = 0.02
    # Quantizer and projections.
    codebook_groups: int = 2
    codebook_entries: int = 320
    codevector_dim: int = 256
    projection_dim: int = 256
    gumbel_temperature_start: float = 2.0
    gumbel_temperature_end: float = 0.5
    gumbel_temperature_decay: float = 0.999995
    # Targets of best-rq: fixed random projections and codebooks, drawn with the seed.
    target_codebooks: int = 4
    target_entries: int = 512
    target_dim: int = 16
    target_seed: int = 0
    # Masking and losses.
    mask_probability: float = 0.65
    mask_span: int = 10
    mask_min_spans: int = 2
    num_negatives: int = 100
    contrastive_temperature: float = 0.1
    diversity_weight: float = 0.1
    diversity_warmup_updates: int = 0
    feature_penalty_weight: float = 10.0
    encoder_gradient_scale: float = 0.1
    # Regularisation.
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    input_dropout: float = 0.1
    feature_dropout: float = 0.1
    layer_drop: float = 0.05
    # How it is computed, not what.
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    convolution_form: ConvolutionForm = "lax"
    scan_unroll: int = 1
    rematerialise_cnn: bool = False  # each CNN layer again in the backward pass
    rematerialise_layers: bool = False  # each transformer layer again in the backward pass
    encoder_block_frames: int | None = None  # the CNN in blocks of time; None: all at once
    attention_block_frames: int | None = None  # queries at a time, with their scores again backward
    feed_forward_block_frames: int | None = None  # frames of a feed-forward net at a time, again backward
    similarity_block_frames: int | None = None  # rows of the contrastive task at a time, again backward
    gathered_negatives: bool = False  # as vectors, in place of counts beside one product
    micro_batch: int | None = None  # utterances at a time, their gradients accumulated; None: all at once
    # What changes the gradients.
    frozen_feature_encoder: bool = False
    truncate_seconds: float | None = None  # clips are cut to so much; None: as they are

    def __post_init__(self):
        if not len(self.conv_channels) == len(self.conv_kernels) == len(self.conv_strides):
            raise ValueError(
                "conv_channels, conv_kernels and conv_strides must have one entry per layer, got "
                f"{len(self.conv_channels)}, {len(self.conv_kernels)} and {len(self.conv_strides)}"
            )
        for name in (
            "encoder_block_frames",
            "attention_block_frames",
            "feed_forward_block_frames",
            "similarity_block_frames",
            "micro_batch",
            "truncate_seconds",
        ):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} must be positive or None, got {value}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == () and self.front_end == "log-mel":
                continue
            if expected := range_fault(field.name, value):
                raise ValueError(f"{field.name} must be {expected}, got {value}")
        self._check_front_end()
        for divisor, of in (
            ("num_heads", "hidden_dim"),
            ("positional_groups", "hidden_dim"),
            ("codebook_groups", "codevector_dim"),
        ):
            if getattr(self, of) % getattr(self, divisor):
                raise ValueError(
                    f"{of} ({getattr(self, of)}) must be a multiple of {divisor} ({getattr(self, divisor)})"
                )

    def _check_front_end(self) -> None:
        if self.front_end == "log-mel" and self.conv_channels:
            raise ValueError("a log-mel front end has no convolutions: conv_channels must be empty")
        if self.objective == "best-rq" and self.front_end != "log-mel":
            raise ValueError("the objective best-rq predicts log-mel frames: front_end must be log-mel")

    @property
    def feature_dim(self) -> int:
        """Values of a latent frame."""
        if self.front_end == "log-mel":
            return self.log_mel_bands * self.log_mel_stack
        return self.conv_channels[-1]

    @property
    def frame_samples(self) -> int:
        """Samples from one latent frame to the next."""
        if self.front_end == "log-mel":
            return LOG_MEL_HOP_SAMPLES * self.log_mel_stack
        return math.prod(self.conv_strides)

    @property
    def trains_front_end(self) -> bool:
        """Tell whether pre-training changes the front end."""
        return self.front_end == "waveform" and not self.frozen_feature_encoder

    @property
    def num_codes(self) -> int:
        """Code entries over all groups: the upper bound of the perplexity."""
        return self.codebook_groups * self.codebook_entries

    @property
    def receptive_field_samples(self) -> int:
        """Samples that one latent frame sees: the shortest usable clip."""
        if self.front_end == "log-mel":
            return LOG_MEL_WINDOW_SAMPLES + (self.log_mel_stack - 1) * LOG_MEL_HOP_SAMPLES
        field = 1
        for kernel, stride in reversed(list(zip(self.conv_kernels, self.conv_strides, strict=True))):
            field = (field - 1) * stride + kernel
        return field

    def num_frames(self, num_samples: int) -> int:
        """Latent frames of a waveform of `num_samples`; 0 where it is too short."""
        if self.front_end == "log-mel":
            windows = (num_samples - LOG_MEL_WINDOW_SAMPLES) // LOG_MEL_HOP_SAMPLES + 1
            return max(windows, 0) // self.log_mel_stack
        length = num_samples
        for kernel, stride in zip(self.conv_kernels, self.conv_strides, strict=True):
            length = (length - kernel) // stride + 1 if length >= kernel else 0
        return length

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of dataclasses.asdict, also after a way through JSON, which has no tuples."""
        fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        if "rematerialise" in fields:  # one setting for both, in older runs
            both = fields.pop("rematerialise")
            fields |= {"rematerialise_cnn": both, "rematerialise_layers": both}
        return cls(**fields)

    def without_dropout(self) -> "ModelConfig":
        """The same model with nothing dropped: no unit, no attention weight, no layer."""
        rates = ("dropout", "attention_dropout", "activation_dropout", "input_dropout", "feature_dropout")
        return self.replace(layer_drop=0.0, **dict.fromkeys(rates, 0.0))

    def replace(self, **changes) -> "ModelConfig":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


BASE = ModelConfig()

LARGE = ModelConfig(
    hidden_dim=1024,
    num_layers=24,
    num_heads=16,
    feed_forward_dim=4096,
    codevector_dim=768,
    projection_dim=768,
    gumbel_temperature_end=0.1,
    feature_penalty_weight=0.0,
    encoder_gradient_scale=1.0,
    dropout=0.0,
    attention_dropout=0.0,
    input_dropout=0.0,
    feature_dropout=0.0,
    layer_drop=0.0,
)

LARGE_LV60 = LARGE.replace(feature_norm="layer", conv_bias=True, pre_norm=True, normalise_waveform=True)

TINY = ModelConfig(
    conv_channels=(32,) * 7,
    hidden_dim=128,
    num_layers=3,
    num_heads=4,
    feed_forward_dim=512,
    positional_kernel=16,
    positional_groups=4,
    codevector_dim=64,
    projection_dim=64,
    mask_span=5,
    gumbel_temperature_decay=0.999,
    # Small models need help off the plateau at ln(101): pre-norm and a larger initial scale; no feature
    # penalty, which under Adam outweighs everything else the encoder could learn at first; and a
    # diversity loss that waits until codes can be predicted, then is strong enough to keep them in use.
    pre_norm=True,
    transformer_initial_std=0.06,
    feature_penalty_weight=0.0,
    diversity_weight=0.3,
    diversity_warmup_updates=300,
    dropout=0.0,
    attention_dropout=0.0,
    input_dropout=0.0,
    feature_dropout=0.0,
    layer_drop=0.0,
    scan_unroll=3,
)

WAV2VEC2_PRESETS = {"tiny": TINY, "base": BASE, "large": LARGE, "large-lv60": LARGE_LV60}

BEST_RQ_TINY = ModelConfig(
    objective="best-rq",
    front_end="log-mel",
    conv_channels=(),
    conv_kernels=(),
    conv_strides=(),
    hidden_dim=192,
    num_layers=4,
    num_heads=4,
    feed_forward_dim=768,
    positional_kernel=16,
    positional_groups=4,
    pre_norm=True,
    encoder_gradient_scale=1.0,
    mask_span=5,
    dropout=0.0,
    attention_dropout=0.0,
    input_dropout=0.0,
    feature_dropout=0.0,
    layer_drop=0.0,
    scan_unroll=4,
)

BEST_RQ_SMALL = BEST_RQ_TINY.replace(
    hidden_dim=320, num_layers=6, num_heads=5, feed_forward_dim=1280, positional_groups=5, scan_unroll=3
)

BEST_RQ_BASE = BEST_RQ_TINY.replace(
    hidden_dim=768,
    num_layers=12,
    num_heads=12,
    feed_forward_dim=3072,
    positional_kernel=64,
    positional_groups=16,
    target_entries=2048,
    mask_span=10,
    dropout=0.1,
    attention_dropout=0.1,
    input_dropout=0.1,
    scan_unroll=1,
)

BEST_RQ_PRESETS = {
    "best-rq-tiny": BEST_RQ_TINY,
    "best-rq-small": BEST_RQ_SMALL,
    "best-rq-base": BEST_RQ_BASE,
}

# wav2vec 2.0 on log-mel frames: encoders of BEST-RQ's shapes, with the losses and codes of TINY.
_ON_LOG_MEL: dict[str, Any] = {
    "objective": "wav2vec2",
    **{
        name: getattr(TINY, name)
        for name in (
            "codevector_dim", "projection_dim", "gumbel_temperature_decay", "feature_penalty_weight",
            "diversity_weight", "diversity_warmup_updates",
        )
    },
}  # fmt: skip
LOG_MEL_PRESETS = {
    "log-mel-tiny": BEST_RQ_TINY.replace(**_ON_LOG_MEL),
    "log-mel-small": BEST_RQ_SMALL.replace(**_ON_LOG_MEL),
}
PRESETS = WAV2VEC2_PRESETS | LOG_MEL_PRESETS | BEST_RQ_PRESETS


def preset_of(objective: ObjectiveName | None, model: str | None) -> str:
    """Name the preset that an objective and a size mean together, such as best-rq and tiny.

    Args:
        objective: None for that of the model.
        model: a preset, or its size alone; None for the smallest.

    Raises:
        ValueError: there is no such preset.
    """
    model = model or "tiny"
    if objective == "best-rq" and not model.startswith("best-rq-"):
        model = f"best-rq-{model}"
    if model not in PRESETS or objective not in (None, PRESETS[model].objective):
        family = [name for name, held in PRESETS.items() if objective in (None, held.objective)]
        raise ValueError(f"there is no model {model} of {objective or 'any objective'}: {', '.join(family)}")
    return model


# Fields that give an encoder's parameters their shapes.
ENCODER_SHAPE = (
    "front_end", "log_mel_bands", "log_mel_stack", "conv_channels", "conv_kernels", "conv_strides",
    "conv_bias", "feature_norm", "hidden_dim", "num_layers", "num_heads", "feed_forward_dim",
    "positional_kernel", "positional_groups", "pre_norm",
)  # fmt: skip
# Fields that say how a model is trained; a checkpoint's arrays do not show them.
TRAINING_SETTINGS = (
    "mask_probability", "mask_span", "mask_min_spans", "num_negatives", "contrastive_temperature",
    "diversity_weight", "diversity_warmup_updates", "feature_penalty_weight", "encoder_gradient_scale",
    "gumbel_temperature_start", "gumbel_temperature_end", "gumbel_temperature_decay",
    "dropout", "attention_dropout", "activation_dropout", "input_dropout", "feature_dropout", "layer_drop",
    "transformer_initial_std",
)  # fmt: skip


def same_shape(one: ModelConfig, other: ModelConfig) -> bool:
    """Tell whether two encoders have parameters of the same shapes."""
    return all(getattr(one, name) == getattr(other, name) for name in ENCODER_SHAPE)


def nearest_preset(config: ModelConfig) -> str:
    """Name the preset of an encoder's shape; if there is none, the nearest one with the same front end.

    The same shape, objective and feature normalisation come first. Then distance is in factors of two of
    width and depth, and pre-norm in place of post-norm, or the reverse, adds five.
    """

    def distance(name: str) -> tuple[bool, bool, bool, float]:
        other = PRESETS[name]
        sizes = ((config.hidden_dim, other.hidden_dim), (config.num_layers, other.num_layers))
        size = sum(abs(math.log2(here / there)) for here, there in sizes)
        return (
            not same_shape(config, other),
            config.objective != other.objective,
            config.feature_norm != other.feature_norm,
            size + 5 * (config.pre_norm != other.pre_norm),
        )

    alike = [name for name, preset in PRESETS.items() if preset.front_end == config.front_end]
    return min(alike, key=distance)
