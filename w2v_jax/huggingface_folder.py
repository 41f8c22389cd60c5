"""Reading a Hugging Face folder: config.json and safetensors, never pickles."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from w2v_jax.config import ModelConfig
from w2v_jax.errors import UserError
from w2v_jax.huggingface import Parameters, encoder_from_state_dict

# Our setting -> transformers' Wav2Vec2Config and its default.
_FIELDS: dict[str, tuple[str, Any]] = {
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
    "dropout": ("hidden_dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.1),
    "input_dropout": ("feat_proj_dropout", 0.0),
    "feature_dropout": ("feat_quantizer_dropout", 0.0),
    "layer_drop": ("layerdrop", 0.1),
}

# What this model does not vary.
_FIXED: dict[str, Any] = {"hidden_act": "gelu", "feat_extract_activation": "gelu", "layer_norm_eps": 1e-5}


def read_config(folder: Path) -> ModelConfig:
    """The model configuration of a Hugging Face folder.

    Raises:
        UserError: no config.json, or one of another architecture.
    """
    path = folder / "config.json"
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder} (expected config.json and model.safetensors)")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        kind = held.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a config.json of a Hugging Face model ({error})") from error
    if kind != "wav2vec2":
        raise UserError(f"{path} describes a model of another architecture ({kind}): expected wav2vec2")
    for name, only in _FIXED.items():
        if held.get(name, only) != only:
            raise UserError(f"{path} has {name} {held[name]!r}: this model has {only!r} alone")
    values = {ours: held.get(theirs, default) for ours, (theirs, default) in _FIELDS.items()}
    # transformers' feature extractor normalises unless told otherwise.
    values["normalise_waveform"] = True
    processing = folder / "preprocessor_config.json"
    if processing.is_file():
        try:
            told = json.loads(processing.read_text(encoding="utf-8")).get("do_normalize", True)
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{processing} is not a preprocessor_config.json ({error})") from error
        values["normalise_waveform"] = bool(told)
    try:
        return ModelConfig.from_dict(values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error


def read_encoder(folder: Path) -> tuple[ModelConfig, Parameters]:
    """Configuration and encoder parameters (NumPy, fp32) of a Hugging Face folder.

    Raises:
        UserError: no weights in safetensors, weights of another architecture, or of other shapes.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    config = read_config(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"no *.safetensors in {folder}: pickled weights (*.bin) are not opened; "
            "save the model with safe_serialization=True"
        )
    state: dict[str, np.ndarray] = {}
    for file in files:
        try:
            state |= load_file(file)
        except (SafetensorError, OSError, TypeError) as error:
            raise UserError(f"cannot read {file} ({error})") from error
    floats = {name: value.astype(np.float32) for name, value in state.items()}
    return config, encoder_from_state_dict(floats, config)
