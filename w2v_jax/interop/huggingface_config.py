"""config.json and the feature extractor's settings of a Hugging Face folder, in both directions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from w2v_jax.config import SAMPLE_RATE_HZ, TRAINING_SETTINGS, ModelConfig, range_fault
from w2v_jax.errors import UserError
from w2v_jax.interop.foreign_files import read_optional, read_settings, refuse_outer_folder
from w2v_jax.interop.huggingface_names import PRE_TRAINING
from w2v_jax.interop.stated import Stated

# Our field -> the field of transformers' Wav2Vec2Config, and its default there.
_SHAPE: dict[str, tuple[str, Any]] = {
    "conv_channels": ("conv_dim", (512,) * 7),
    "conv_kernels": ("conv_kernel", (10, 3, 3, 3, 3, 2, 2)),
    "conv_strides": ("conv_stride", (5, 2, 2, 2, 2, 2, 2)),
    "conv_bias": ("conv_bias", False),
    "feature_norm": ("feat_extract_norm", "group"),
    "hidden_dim": ("hidden_size", 768),
    "num_layers": ("num_hidden_layers", 12),
    "num_heads": ("num_attention_heads", 12),
    "feed_forward_dim": ("intermediate_size", 3072),
    "positional_kernel": ("num_conv_pos_embeddings", 128),
    "positional_groups": ("num_conv_pos_embedding_groups", 16),
    "pre_norm": ("do_stable_layer_norm", False),
    "codebook_groups": ("num_codevector_groups", 2),
    "codebook_entries": ("num_codevectors_per_group", 320),
    "codevector_dim": ("codevector_dim", 256),
    "projection_dim": ("proj_codevector_dim", 256),
}
# The same for training settings; one that config.json leaves out comes from a preset.
_TRAINING = {
    "dropout": "hidden_dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "input_dropout": "feat_proj_dropout",
    "feature_dropout": "feat_quantizer_dropout",
    "layer_drop": "layerdrop",
    "num_negatives": "num_negatives",
    "contrastive_temperature": "contrastive_logits_temperature",
    "diversity_weight": "diversity_loss_weight",
    "mask_span": "mask_time_length",
    "mask_min_spans": "mask_time_min_masks",
    "mask_probability": "mask_time_prob",
    "transformer_initial_std": "initializer_range",
}
# transformers has no field for the others: config.json keeps them in a table of this name.
OURS = "w2v_jax"
_OURS_ALONE = ("mask_probability", *(name for name in TRAINING_SETTINGS if name not in _TRAINING))
# mask_time_prob is one field for two uses. Fine-tuning's SpecAugment has 0.05 to 0.08 in published models,
# also in those of the pre-training class; pre-training masks about half of the frames, which takes far more.
LEAST_PRETRAINING_MASK, FINE_TUNING_MASK = 0.1, 0.05
# The only values that this model computes with.
_FIXED: dict[str, Any] = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "add_adapter": False,
    "adapter_attn_dim": None,
    "quantization_config": None,
    "position_embeddings_type": None,
}
# Settings of fine-tuning in transformers, and the value at which they do nothing.
_FINE_TUNING = {"mask_feature_prob": 0.0, "final_dropout": 0.0, "feat_extract_dropout": 0.0}
_EXTRACTOR = "Wav2Vec2FeatureExtractor"
_EXTRACTOR_FIXED = {"sampling_rate": SAMPLE_RATE_HZ, "feature_size": 1, "feature_extractor_type": _EXTRACTOR}
# Waveforms are padded so here; a clip by itself, which has no padding, is computed the same either way.
_PADDING = {"padding_side": "right", "padding_value": 0.0}
CONFIG_FILE, EXTRACTOR_FILE, PROCESSOR_FILE = (
    "config.json", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip


def read_model_settings(folder: Path) -> dict[str, Any]:
    """Read config.json as it is.

    Raises:
        UserError: no such folder, no config.json, or one of another architecture.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder} (expected config.json and model.safetensors)")
    refuse_outer_folder(folder)
    path = folder / CONFIG_FILE
    held = read_settings(path, "a config.json of a Hugging Face model")
    if (kind := held.get("model_type")) != "wav2vec2":
        raise UserError(f"{path} describes a model of another architecture ({kind}): expected wav2vec2")
    for name, only in _FIXED.items():
        if held.get(name, only) != only:
            raise UserError(f"{path} has {name} {held[name]!r}: this model has {only!r} alone")
    return held


def read_stated(folder: Path) -> Stated:
    """Read what a folder's config.json and feature extractor state.

    Raises:
        UserError: no config.json, one of another architecture, or a setting that this project does not
            follow.
    """
    held = read_model_settings(folder)
    path = folder / CONFIG_FILE
    values = {ours: held.get(theirs, default) for ours, (theirs, default) in _SHAPE.items()}
    for ours, (theirs, default) in _SHAPE.items():
        _check(path, theirs, values[ours], default, ours)
    if values["feature_norm"] not in ("group", "layer"):
        raise UserError(f"{path} has feat_extract_norm {values['feature_norm']!r}: expected group or layer")
    training, origins, notes = _training(path, held)
    extractor, extractor_notes = read_extractor(folder)
    values |= training | {"normalise_waveform": extractor.get("do_normalize", True)}
    stated = Stated(values, origins, (*extractor_notes, *notes))
    try:
        stated.shape()
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    return stated


def _training(path: Path, held: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """(training settings that config.json states, their origins, notes)."""
    default = ModelConfig()
    values = {ours: held[theirs] for ours, theirs in _TRAINING.items() if held.get(theirs) is not None}
    origins = dict.fromkeys(values, path.name)
    unused = [
        f"{name} {held[name]}" for name, off in _FINE_TUNING.items() if held.get(name) not in (None, off)
    ]
    for name, off in _FINE_TUNING.items():
        _check(path, name, off if held.get(name) is None else held[name], off)
    for ours, value in values.items():
        _check(path, _TRAINING[ours], value, getattr(default, ours), ours)
    if values.get("mask_probability", 1.0) < LEAST_PRETRAINING_MASK:
        unused = [f"mask_time_prob {values.pop('mask_probability')}", *unused]
        del origins["mask_probability"]
    own: dict[str, Any] = held[OURS] if isinstance(held.get(OURS), dict) else {}
    for name in _OURS_ALONE:
        if name in own and name not in values:
            _check(path, f"{OURS}.{name}", own[name], getattr(default, name), name)
            values[name], origins[name] = own[name], f"{path.name} ({OURS})"
    notes = [f"{path}: not used, for they set fine-tuning in transformers: {', '.join(unused)}"]
    return values, origins, notes if unused else []


def _check(path: Path, name: str, value: Any, like: Any, ours: str = "") -> None:
    """Refuse a value of another kind than `like`, such as a number as text, or outside the range of `ours`.

    Args:
        path, name: its file and its name there, for the message.
        value: the value.
        like: a value of the right kind.
        ours: the field of `ModelConfig` that it sets, if any.

    Raises:
        UserError: it is one.
    """
    if isinstance(like, tuple):
        right, kind = isinstance(value, list | tuple) and all(type(v) is int for v in value), "a list of int"
    elif isinstance(like, float):
        right, kind = type(value) in (int, float), "a number"
    else:
        right, kind = type(value) is type(like), f"of type {type(like).__name__}"
    if fault := range_fault(ours, value) if right else kind:
        raise UserError(f"{path} has {name} {value!r}: it must be {fault}")


def read_extractor(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Read the settings of a folder's feature extractor, and notes on what they are.

    As transformers 5 does, the table in processor_config.json goes before preprocessor_config.json.

    Raises:
        UserError: a file that is no JSON, or another extractor, or audio of another sampling rate.
    """
    path = folder / PROCESSOR_FILE
    held = read_optional(path, "a processor_config.json").get("feature_extractor")
    alone = read_optional(folder / EXTRACTOR_FILE, "a preprocessor_config.json")
    notes = []
    if not isinstance(held, dict):
        path, held = folder / EXTRACTOR_FILE, alone
    elif "do_normalize" in alone and alone["do_normalize"] != held.get("do_normalize", True):
        notes.append(f"{path} goes before {EXTRACTOR_FILE}, which has another do_normalize")
    for name, only in _EXTRACTOR_FIXED.items():
        if held.get(name, only) != only:
            raise UserError(f"{path} has {name} {held[name]!r}: this project reads {only!r} alone")
    if "do_normalize" not in held:
        notes.append(f"{folder} states no do_normalize: waveforms are normalised, transformers' default")
    _check(path, "do_normalize", held.get("do_normalize", True), True)
    for name, ours in _PADDING.items():
        if held.get(name, ours) != ours:
            notes.append(
                f"{path} has {name} {held[name]!r}: not followed, this project pads with zeros on the right"
            )
    return held, notes


def model_settings_of(
    config: ModelConfig, kind: str, kept: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write a model's config.json as a table.

    Args:
        config: ours.
        kind: its class in transformers.
        kept: what the folder that the model came from held; our values go before its own.
    """
    kept = kept or {}
    told = {theirs: getattr(config, ours) for ours, (theirs, _) in _SHAPE.items()}
    told |= {theirs: getattr(config, ours) for ours, theirs in _TRAINING.items()}
    masks = 1.0 if kept.get("mask_time_prob") is None else kept["mask_time_prob"]
    if masks < LEAST_PRETRAINING_MASK or kept.get("architectures") == [kind] != [PRE_TRAINING]:
        told["mask_time_prob"] = masks
    elif kind != PRE_TRAINING:
        told["mask_time_prob"] = FINE_TUNING_MASK
    return {
        **kept,
        **told,
        **{name: value for name, value in _FIXED.items() if name in kept or value is not None},
        OURS: {name: getattr(config, name) for name in _OURS_ALONE},
        "num_feat_extract_layers": len(config.conv_channels),
        "architectures": [kind],
        "model_type": "wav2vec2",
        "dtype": "float32",
    }


def extractor_settings_of(config: ModelConfig, kept: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write a model's preprocessor_config.json as a table.

    Args:
        config: ours. Its attention leaves padding out, so that padded batches need an attention mask.
        kept: what the folder that the model came from held; only do_normalize of it is overwritten.
    """
    return {
        **_EXTRACTOR_FIXED,
        **_PADDING,
        "return_attention_mask": True,
        **(kept or {}),
        "do_normalize": config.normalise_waveform,
    }
