"""Hugging Face folders: config.json, arrays in safetensors, what transformers' processors want beside them.

Pickled arrays (*.bin) are read without running what they name (`torch_pickles`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.errors import UserError
from w2v_jax.interop import huggingface_names, torch_pickles
from w2v_jax.interop.huggingface_names import Parameters, WeightNorm, encoder_from_state_dict
from w2v_jax.model.binding import bind
from w2v_jax.model.wav2vec2 import Encoder, Wav2Vec2

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

# Likewise, of what its pre-training class does.
_OF_TRAINING: dict[str, tuple[str, Any]] = {
    "num_negatives": ("num_negatives", 100),
    "contrastive_temperature": ("contrastive_logits_temperature", 0.1),
    "diversity_weight": ("diversity_loss_weight", 0.1),
    "mask_span": ("mask_time_length", 10),
}

# What this model does not vary.
_FIXED: dict[str, Any] = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "add_adapter": False,
    "adapter_attn_dim": None,
}


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
    fields = _FIELDS | _OF_TRAINING
    values = {ours: held.get(theirs, default) for ours, (theirs, default) in fields.items()}
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


class HuggingFaceModel(NamedTuple):
    """A model of a Hugging Face folder.

    Attributes:
        kind: its class there.
        config: ours.
        parameters: ours (NumPy, fp32), as `huggingface_names.from_state_dict` gives them.
        settings: its config.json as it is.
    """

    kind: str
    config: ModelConfig
    parameters: Parameters
    settings: dict[str, Any]


def read_encoder(folder: Path) -> tuple[ModelConfig, Parameters]:
    """Configuration and encoder parameters (NumPy, fp32) of a Hugging Face folder.

    Raises:
        UserError: no weights, weights of another architecture, or of other shapes.
    """
    config = read_config(folder)
    return config, encoder_from_state_dict(read_arrays(folder), config)


def read_model(folder: Path) -> HuggingFaceModel:
    """A whole model of a Hugging Face folder, of the class that its config.json names.

    Raises:
        UserError: no weights, another class, or missing, extra or misshapen arrays, listed by name.
    """
    config, kind = read_config(folder), kind_of(folder)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shapes = huggingface_names.shapes_of(abstract(config, kind, settings), config, kind)
    parameters = huggingface_names.from_state_dict(read_arrays(folder), config, kind, shapes)
    return HuggingFaceModel(kind, config, parameters, settings)


def kind_of(folder: Path) -> str:
    """The class that a folder's config.json names.

    Raises:
        UserError: none of those that are known here.
    """
    named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    kinds = [kind for kind in huggingface_names.KINDS if kind in named]
    if not kinds:
        raise UserError(
            f"{folder / 'config.json'} names the architectures {named or 'none'}: expected one of "
            f"{', '.join(huggingface_names.KINDS)}"
        )
    return kinds[0]


def abstract(config: ModelConfig, kind: str, settings: Mapping[str, Any]) -> Parameters:
    """Shapes of the parameters of a class; `settings` tell a CTC model's number of tokens."""
    module = Wav2Vec2 if kind == huggingface_names.PRE_TRAINING else Encoder
    make, _ = bind(lambda key: module(config, key))
    shapes = dict(jax.eval_shape(make, jax.random.key(0)))
    if kind == huggingface_names.CTC:
        tokens = int(settings.get("vocab_size", 32))
        shapes[huggingface_names.HEAD] = {
            "kernel": jax.ShapeDtypeStruct((config.hidden_dim, tokens), np.float32),
            "bias": jax.ShapeDtypeStruct((tokens,), np.float32),
        }
    return shapes


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of a folder, in fp32: of its safetensors, else of its *.bin.

    Raises:
        UserError: there are none, or they cannot be read, or a *.bin that names code.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    state: dict[str, Any] = {}
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise UserError(f"no *.safetensors and no pytorch_model.bin in {folder}: it holds no weights")
    for file in files:
        if file.suffix == ".bin":
            held = torch_pickles.read(file)
            if not isinstance(held, dict) or not all(
                type(name) is str and type(value) is np.ndarray for name, value in held.items()
            ):
                raise UserError(f"{file} holds something else than named arrays")
            state |= held
            continue
        try:
            state |= load_file(file)
        except (SafetensorError, OSError, TypeError) as error:
            raise UserError(f"cannot read {file} ({error})") from error
    return {name: np.asarray(value, np.float32) for name, value in state.items()}


def settings_of(config: ModelConfig, kind: str, kept: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """config.json of transformers for a model.

    Args:
        config: ours.
        kind: its class there.
        kept: of the folder that the model came from; what ours says goes before.
    """
    told = {theirs: getattr(config, ours) for ours, (theirs, _) in (_FIELDS | _OF_TRAINING).items()}
    return {
        **(kept or {}),
        **told,
        **_FIXED,
        "num_feat_extract_layers": len(config.conv_channels),
        "architectures": [kind],
        "model_type": "wav2vec2",
        "dtype": "float32",
    }


def write_model(
    folder: Path,
    kind: str,
    config: ModelConfig,
    parameters: Parameters,
    *,
    kept: Mapping[str, Any] | None = None,
    weight_norm: WeightNorm = "parametrizations",
) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json.

    Args:
        folder: made if need be.
        kind, config, parameters: as `read_model` gives them.
        kept: config.json of the folder that the model came from.
        weight_norm: see `huggingface_names.to_state_dict`.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = huggingface_names.to_state_dict(parameters, config, kind, weight_norm)
    settings = settings_of(config, kind, kept)
    if kind != huggingface_names.PRE_TRAINING and not _masks(settings):
        state = {
            name: value
            for name, value in state.items()
            if not name.endswith(huggingface_names.MASK_EMBEDDING)
        }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", settings)
    _write(
        folder / "preprocessor_config.json",
        {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": SAMPLE_RATE_HZ,
            "padding_side": "right",
            "padding_value": 0.0,
            "do_normalize": config.normalise_waveform,
            # Models whose features are normalised over the whole clip were trained with padding attended to.
            "return_attention_mask": config.feature_norm == "layer",
        },
    )


def _masks(settings: Mapping[str, Any]) -> bool:
    """Whether transformers gives a model a mask embedding."""
    return settings.get("mask_time_prob", 0.05) > 0 or settings.get("mask_feature_prob", 0.0) > 0


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
