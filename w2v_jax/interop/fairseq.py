"""Checkpoints of fairseq's wav2vec 2.0 (*.pt): its names become transformers', its settings ours.

Shapes are read off the arrays; what they do not tell (strides, heads, dropout) off the settings that the file
keeps, or it is as in the published models.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from w2v_jax.config import ModelConfig
from w2v_jax.errors import UserError
from w2v_jax.interop import huggingface_names, torch_pickles
from w2v_jax.interop.huggingface_names import Parameters
from w2v_jax.interop.inert_pickles import Record

HEAD_DIM = 64  # of all published models
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
# Our settings -> fairseq's, where arrays do not tell.
_SETTINGS = {
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "input_dropout": "dropout_input",
    "feature_dropout": "dropout_features",
    "layer_drop": "encoder_layerdrop",
    "num_heads": "encoder_attention_heads",
    "positional_groups": "conv_pos_groups",
    "codebook_groups": "latent_groups",
    "num_negatives": "num_negatives",
    "contrastive_temperature": "logit_temp",
    "mask_probability": "mask_prob",
    "mask_span": "mask_length",
    "encoder_gradient_scale": "feature_grad_mult",
    "pre_norm": "layer_norm_first",
}


def read(path: Path) -> tuple[ModelConfig, Parameters]:
    """Configuration and parameters (NumPy, fp32) of a pre-training checkpoint.

    Raises:
        UserError: it names code, holds another model, or arrays are missing, extra or misshapen.
    """
    held = torch_pickles.read(path)
    arrays = held.get("model") if isinstance(held, dict) else None
    if not isinstance(arrays, dict) or "mask_emb" not in arrays:
        raise UserError(f"{path} is not a pre-training checkpoint of fairseq's wav2vec 2.0 (no mask_emb)")
    if not all(type(name) is str and type(value) is np.ndarray for name, value in arrays.items()):
        raise UserError(f"{path} holds something else than named arrays under 'model'")
    state = {transformers_name(name): np.asarray(value, np.float32) for name, value in arrays.items()}
    try:
        config = config_of(arrays, settings_of(held))
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a wav2vec 2.0 that this project knows ({error})") from error
    return config, huggingface_names.from_state_dict(state, config)


def transformers_name(name: str) -> str:
    """What transformers calls an array; names that fairseq does not have come back as they are."""
    for pattern, other in _NAMES:
        if re.fullmatch(pattern, name):
            return re.sub(rf"^{pattern}$", other, name)
    return name


def settings_of(held: Mapping[str, Any]) -> dict[str, Any]:
    """The model's settings in a checkpoint: of `cfg.model`, or of `args` in older ones."""
    for source in (_fields(held.get("cfg")).get("model"), held.get("args")):
        fields = _fields(source)
        if fields:
            return fields
    return {}


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, Record):
        fields = value.fields
        content = fields.get("_content")  # omegaconf keeps its nodes there, and values in theirs
        if isinstance(content, dict):
            return {str(name): _plain(node) for name, node in content.items()}
        return fields
    return dict(value) if isinstance(value, Mapping) else {}


def _plain(node: Any) -> Any:
    if isinstance(node, Record) and "_val" in node.fields:
        return node.fields["_val"]
    return node


def config_of(arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> ModelConfig:
    """Our configuration of fairseq's arrays and settings."""
    count = len({m[1] for name in arrays if (m := re.fullmatch(rf"{CONVOLUTION}\.(\d+)\.0\.weight", name))})
    kernels = [arrays[f"{CONVOLUTION}.{index}.0.weight"] for index in range(count)]
    layers = len({m[1] for name in arrays if (m := re.match(r"encoder\.layers\.(\d+)\.", name))})
    hidden = arrays["post_extract_proj.weight"].shape[0]
    default = ModelConfig()
    told = {ours: settings[theirs] for ours, theirs in _SETTINGS.items() if settings.get(theirs) is not None}
    layer_norm = f"{CONVOLUTION}.1.2.1.weight" in arrays
    codes, per_code = arrays["quantizer.vars"].shape[1:]
    groups = int(told.pop("codebook_groups", default.codebook_groups))
    if count != len(default.conv_strides):
        raise ValueError(f"{count} convolutions, of unknown strides")
    direction = arrays["encoder.pos_conv.0.weight_v"]
    return ModelConfig(
        **{
            "num_heads": hidden // HEAD_DIM,
            "pre_norm": layer_norm,
            "positional_groups": hidden // direction.shape[1],
            **told,
        },
        conv_channels=tuple(kernel.shape[0] for kernel in kernels),
        conv_kernels=tuple(kernel.shape[2] for kernel in kernels),
        conv_strides=default.conv_strides,
        conv_bias=f"{CONVOLUTION}.0.0.bias" in arrays,
        feature_norm="layer" if layer_norm else "group",
        normalise_waveform=layer_norm,
        hidden_dim=hidden,
        num_layers=layers,
        feed_forward_dim=arrays["encoder.layers.0.fc1.weight"].shape[0],
        positional_kernel=direction.shape[2],
        codebook_groups=groups,
        codebook_entries=codes // groups,
        codevector_dim=per_code * groups,
        projection_dim=arrays["project_q.weight"].shape[0],
    )
