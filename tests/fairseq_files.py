"""A checkpoint as fairseq writes it, of a model with its seven convolutions, made without torch."""

import argparse
from pathlib import Path
from typing import Literal

from tests import torch_files
from w2v_jax.config import ModelConfig
from w2v_jax.interop import fairseq, huggingface_names
from w2v_jax.interop.huggingface_names import PRE_TRAINING
from w2v_jax.objective.pretraining import Parameters

FAIRSEQ = {
    "wav2vec2.masked_spec_embed": "mask_emb",
    "wav2vec2.feature_projection.projection": "post_extract_proj",
    "wav2vec2.feature_projection.layer_norm": "layer_norm",
    "wav2vec2.encoder.pos_conv_embed.conv": "encoder.pos_conv.0",
    "quantizer.codevectors": "quantizer.vars",
    "project_hid": "final_proj",
}


def fairseq_name(name: str, layer_norm: bool) -> str:
    """The other way round, written down by itself."""
    for theirs, its in FAIRSEQ.items():
        if name.startswith(theirs):
            return its + name.removeprefix(theirs)
    name = name.removeprefix("wav2vec2.")
    if name.startswith("feature_extractor."):
        norm = ".2.1." if layer_norm else ".2."
        return name.replace(".conv.", ".0.").replace(".layer_norm.", norm)
    if name.startswith("encoder.layers."):
        name = name.replace(".layer_norm.", ".self_attn_layer_norm.").replace(".attention.", ".self_attn.")
        name = name.replace(".feed_forward.intermediate_dense.", ".fc1.")
        return name.replace(".feed_forward.output_dense.", ".fc2.")
    return name


def config_of(variant: Literal["group", "layer"]) -> ModelConfig:
    """A small model of fairseq's shape."""
    return ModelConfig(
        conv_channels=(8,) * 7,
        conv_bias=variant == "layer",
        feature_norm=variant,
        normalise_waveform=variant == "layer",
        pre_norm=variant == "layer",
        hidden_dim=64,
        num_layers=2,
        num_heads=4,
        feed_forward_dim=32,
        positional_kernel=8,
        positional_groups=4,
        codebook_entries=10,
        codevector_dim=8,
        projection_dim=8,
        layer_drop=0.2,
    )


def arrays_of(config: ModelConfig, parameters: Parameters) -> dict[str, torch_files.Tensor]:
    """Arrays by fairseq's names."""
    layer_norm = config.feature_norm == "layer"
    state = huggingface_names.to_state_dict(parameters, config, PRE_TRAINING, "weight_g")
    arrays = {fairseq_name(name, layer_norm): torch_files.Tensor(value) for name, value in state.items()}
    assert all(fairseq.transformers_name(new) == old for new, old in zip(arrays, state, strict=True))
    return arrays


def write(path: Path, config: ModelConfig, parameters: Parameters) -> None:
    """Write a checkpoint whose settings are in `args`."""
    settings = argparse.Namespace(encoder_attention_heads=4, encoder_layerdrop=0.2, feature_grad_mult=0.1)
    torch_files.save(path, {"args": settings, "model": arrays_of(config, parameters)})
