"""Checkpoints of fairseq's wav2vec 2.0 (*.pt): its names become transformers', its settings ours.

Shapes are read off the arrays. Strides, heads and training settings are read from the settings that the
file keeps (`fairseq_settings`); a shape that neither tells is as in the published models, and noted.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from w2v_jax.config import TRAINING_SETTINGS, ModelConfig
from w2v_jax.errors import UserError
from w2v_jax.interop import huggingface_names, torch_pickles
from w2v_jax.interop.fairseq_settings import Read, held_settings, read_settings
from w2v_jax.interop.huggingface_names import Parameters
from w2v_jax.interop.stated import Stated

HEAD_DIM = 64  # width of an attention head in all published models
CONVOLUTION = "feature_extractor.conv_layers"
# fairseq's names, as patterns, and transformers'.
_NAMES = (
    (r"mask_emb", "wav2vec2.masked_spec_embed"),
    (rf"{CONVOLUTION}\.(\d+)\.0\.(.+)", r"wav2vec2.feature_extractor.conv_layers.\1.conv.\2"),
    (rf"{CONVOLUTION}\.(\d+)\.2\.(?:1\.)?(.+)", r"wav2vec2.feature_extractor.conv_layers.\1.layer_norm.\2"),
    (r"post_extract_proj\.(.+)", r"wav2vec2.feature_projection.projection.\1"),
    (r"layer_norm\.(.+)", r"wav2vec2.feature_projection.layer_norm.\1"),
    (r"encoder\.pos_conv\.0\.(.+)", r"wav2vec2.encoder.pos_conv_embed.conv.\1"),
    (r"encoder\.layer_norm\.(.+)", r"wav2vec2.encoder.layer_norm.\1"),
    (r"encoder\.layers\.(\d+)\.self_attn\.(.+)", r"wav2vec2.encoder.layers.\1.attention.\2"),
    (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.(.+)", r"wav2vec2.encoder.layers.\1.layer_norm.\2"),
    (r"encoder\.layers\.(\d+)\.fc1\.(.+)", r"wav2vec2.encoder.layers.\1.feed_forward.intermediate_dense.\2"),
    (r"encoder\.layers\.(\d+)\.fc2\.(.+)", r"wav2vec2.encoder.layers.\1.feed_forward.output_dense.\2"),
    (r"encoder\.layers\.(\d+)\.final_layer_norm\.(.+)", r"wav2vec2.encoder.layers.\1.final_layer_norm.\2"),
    (r"quantizer\.vars", "quantizer.codevectors"),
    (r"quantizer\.weight_proj\.(.+)", r"quantizer.weight_proj.\1"),
    (r"project_q\.(.+)", r"project_q.\1"),
    (r"final_proj\.(.+)", r"project_hid.\1"),
)
# The weight norm of the positional convolution, as newer versions of torch call its two arrays.
_NEWER = {
    ".parametrizations.weight.original0": ".weight_g",
    ".parametrizations.weight.original1": ".weight_v",
}


def read(path: Path) -> tuple[ModelConfig, Parameters]:
    """Read configuration and parameters (NumPy, fp32) of a pre-training checkpoint.

    Raises:
        UserError: see `read_model`.
    """
    stated, parameters = read_model(path)
    return stated.resolve().config, parameters


def read_model(path: Path) -> tuple[Stated, Parameters]:
    """Read what a pre-training checkpoint states, and its parameters (NumPy, fp32).

    Raises:
        UserError: it names code, holds another model, states a setting that this project does not follow,
            or arrays are missing, extra or misshapen.
    """
    held = torch_pickles.read(path)
    arrays = held.get("model") if isinstance(held, dict) else None
    if not isinstance(arrays, dict) or "mask_emb" not in arrays:
        raise UserError(f"{path} is not a pre-training checkpoint of fairseq's wav2vec 2.0 (no mask_emb)")
    if not all(type(name) is str and type(value) is np.ndarray for name, value in arrays.items()):
        raise UserError(f"{path} holds something else than named arrays under 'model'")
    arrays = {_older_name(name): value for name, value in arrays.items()}
    state = {transformers_name(name): np.asarray(value, np.float32) for name, value in arrays.items()}
    try:
        stated = _stated(path, arrays, read_settings(held_settings(held)))
        config = stated.shape()
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"{path}: not a wav2vec 2.0 that this project knows ({error})") from error
    return stated, huggingface_names.from_state_dict(state, config)


def _older_name(name: str) -> str:
    for newer, older in _NEWER.items():
        name = name.removesuffix(newer) + older if name.endswith(newer) else name
    return name


def transformers_name(name: str) -> str:
    """Translate the name of an array to transformers'; names that fairseq does not have stay as they are."""
    for pattern, other in _NAMES:
        if re.fullmatch(pattern, name):
            return re.sub(rf"^{pattern}$", other, name)
    return name


def _stated(path: Path, arrays: Mapping[str, np.ndarray], read: Read) -> Stated:
    """Combine arrays and settings; a shape that neither tells is as in the published models, and noted.

    Raises:
        ValueError, KeyError: arrays are missing, or contradict the settings.
    """
    values = dict(read.values)
    count = len({m[1] for name in arrays if (m := re.fullmatch(rf"{CONVOLUTION}\.(\d+)\.0\.weight", name))})
    kernels = [arrays[f"{CONVOLUTION}.{index}.0.weight"] for index in range(count)]
    channels, widths = tuple(k.shape[0] for k in kernels), tuple(k.shape[2] for k in kernels)
    hidden = arrays["post_extract_proj.weight"].shape[0]
    layer_norm = f"{CONVOLUTION}.1.2.1.weight" in arrays
    direction = arrays["encoder.pos_conv.0.weight_v"]
    assumed: dict[str, Any] = {}
    if read.layers is None:
        assumed["conv_strides"] = ModelConfig.conv_strides
        if count != len(ModelConfig.conv_strides):
            raise ValueError(f"{count} convolutions, of unknown strides")
    elif [layer[:2] for layer in read.layers] != list(zip(channels, widths, strict=True)):
        raise ValueError("conv_feature_layers has other convolutions than the arrays")
    else:
        values["conv_strides"] = tuple(stride for _, _, stride in read.layers)
    for field, default in (
        ("num_heads", hidden // HEAD_DIM),
        ("pre_norm", layer_norm),
        ("normalise_waveform", layer_norm),
        ("codebook_groups", ModelConfig.codebook_groups),
    ):
        if field not in values:
            assumed[field] = default
    values = {"positional_groups": hidden // direction.shape[1], **values, **assumed}
    groups = values["codebook_groups"]
    codes, per_code = arrays["quantizer.vars"].shape[1:]
    values |= {
        "conv_channels": channels,
        "conv_kernels": widths,
        "conv_bias": f"{CONVOLUTION}.0.0.bias" in arrays,
        "feature_norm": "layer" if layer_norm else "group",
        "hidden_dim": hidden,
        "num_layers": len({m[1] for name in arrays if (m := re.match(r"encoder\.layers\.(\d+)\.", name))}),
        "feed_forward_dim": arrays["encoder.layers.0.fc1.weight"].shape[0],
        "positional_kernel": direction.shape[2],
        "codebook_entries": codes // groups,
        "codevector_dim": per_code * groups,
        "projection_dim": arrays["project_q.weight"].shape[0],
    }
    notes = [f"{path}: {note}" for note in read.notes]
    if assumed:
        told = ", ".join(f"{name} {value}" for name, value in assumed.items())
        notes.append(f"{path} does not state, so it is as in the published models: {told}")
    origins = {name: origin for name, origin in read.origins.items() if name in TRAINING_SETTINGS}
    return Stated(values, origins, tuple(notes))
