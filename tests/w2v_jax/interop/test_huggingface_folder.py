"""Hugging Face folders: config.json and safetensors as transformers writes them, and what is refused."""

import functools
import json

import chex
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.configs import SMALL, VARIANTS
from w2v_jax.config import BASE, ModelConfig
from w2v_jax.errors import UserError
from w2v_jax.interop import huggingface_names
from w2v_jax.interop.huggingface_folder import read_config, read_encoder
from w2v_jax.objective.pretraining import bind_model


@functools.cache
def parameters_of(config):
    return jax.device_get(jax.jit(bind_model(config)[0])(jax.random.key(0)))


def settings_of(config):
    """config.json as transformers would write it."""
    return {
        "model_type": "wav2vec2",
        "conv_dim": config.conv_channels,
        "conv_kernel": config.conv_kernels,
        "conv_stride": config.conv_strides,
        "conv_bias": config.conv_bias,
        "feat_extract_norm": config.feature_norm,
        "hidden_size": config.hidden_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.feed_forward_dim,
        "num_conv_pos_embeddings": config.positional_kernel,
        "num_conv_pos_embedding_groups": config.positional_groups,
        "do_stable_layer_norm": config.pre_norm,
        "feat_proj_dropout": 0.3,
        "layerdrop": 0.25,
    }


def write_folder(folder, config=SMALL, state=None, **changes):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings_of(config) | changes))
    if state is None:
        state = huggingface_names.to_state_dict(parameters_of(config), config)
    if state:
        save_file(state, folder / "model.safetensors")
    return folder


def encoder_alone(parameters):
    kept = ("feature_encoder", "feature_projection", "mask_embedding", "context_network")
    return {name: parameters[name] for name in kept}


@pytest.mark.parametrize("name", VARIANTS)
def test_an_encoder_comes_back_bit_by_bit(tmp_path, name):
    config = VARIANTS[name]
    found_config, found = read_encoder(write_folder(tmp_path / "m", config))
    chex.assert_trees_all_equal(found, encoder_alone(parameters_of(config)))
    for field in (
        "conv_channels",
        "conv_bias",
        "feature_norm",
        "pre_norm",
        "num_layers",
        "positional_groups",
    ):
        assert getattr(found_config, field) == getattr(config, field)
    assert (found_config.input_dropout, found_config.layer_drop) == (0.3, 0.25)


@pytest.mark.parametrize("spelling", ["no prefix", "old weight norm", "half precision", "a head besides"])
def test_other_spellings_are_understood(tmp_path, spelling):
    state = huggingface_names.to_state_dict(parameters_of(SMALL), SMALL)
    if spelling == "no prefix":  # Wav2Vec2Model
        state = {
            name.removeprefix("wav2vec2."): value for name, value in state.items() if "wav2vec2." in name
        }
    elif spelling == "old weight norm":
        renaming = {
            "parametrizations.weight.original0": "weight_g",
            "parametrizations.weight.original1": "weight_v",
        }
        for new, old in renaming.items():
            state = {name.replace(new, old): value for name, value in state.items()}
    elif spelling == "half precision":
        state = {name: value.astype(np.float16) for name, value in state.items()}
    else:  # Wav2Vec2ForCTC
        state["lm_head.weight"] = np.zeros((32, 16), np.float32)
    _, found = read_encoder(write_folder(tmp_path / "m", state=state))
    expected = encoder_alone(parameters_of(SMALL))
    if spelling == "half precision":
        expected = jax.tree.map(lambda leaf: leaf.astype(np.float16).astype(np.float32), expected)
    chex.assert_trees_all_equal(found, expected)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))


def test_weights_in_several_files_are_put_together(tmp_path):
    state = huggingface_names.to_state_dict(parameters_of(SMALL), SMALL)
    folder = write_folder(tmp_path / "m", state={})
    names = sorted(state)
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: state[name] for name in part}, folder / f"model-{number}.safetensors")
    mapping = {name: f"model-{place % 2}.safetensors" for place, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))
    chex.assert_trees_all_equal(read_encoder(folder)[1], encoder_alone(parameters_of(SMALL)))


def test_a_config_without_settings_is_the_base_model(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}')
    found = read_config(tmp_path)
    assert isinstance(found, ModelConfig)
    for field in (
        "conv_channels", "conv_kernels", "conv_strides", "conv_bias", "feature_norm", "hidden_dim",
        "num_layers", "num_heads", "feed_forward_dim", "positional_kernel", "positional_groups", "pre_norm",
    ):  # fmt: skip
        assert getattr(found, field) == getattr(BASE, field)
    assert found.normalise_waveform


@pytest.mark.parametrize("wanted", [True, False])
def test_waveforms_are_normalised_as_the_folder_says(tmp_path, wanted):
    folder = write_folder(tmp_path / "m", state={})
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": wanted}))
    assert read_config(folder).normalise_waveform == wanted


def refused(folder):
    with pytest.raises(UserError) as error:
        read_encoder(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_no_wav2vec2_in_safetensors_is_refused(tmp_path):
    assert "no such folder" in refused(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "is not a config.json of a Hugging Face model" in refused(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("[1]")
    assert "is not a config.json of a Hugging Face model" in refused(tmp_path / "empty")
    message = refused(write_folder(tmp_path / "hubert", model_type="hubert"))
    assert "another architecture (hubert): expected wav2vec2" in message
    pickled = write_folder(tmp_path / "pickled", state={})
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "is not a file that torch wrote since version 1.6" in refused(pickled)
    assert "it holds no weights" in refused(write_folder(tmp_path / "bare", state={}))
    (pickled / "model.safetensors").write_bytes(b"not weights\x00")
    assert "cannot read" in refused(pickled)
    assert "hidden_dim (15) must be a multiple" in refused(write_folder(tmp_path / "odd", hidden_size=15))
    other = write_folder(tmp_path / "relu", hidden_act="relu")
    assert "hidden_act 'relu': this model has 'gelu' alone" in refused(other)
    garbled = write_folder(tmp_path / "garbled")
    (garbled / "preprocessor_config.json").write_text("{")
    assert "preprocessor_config.json" in refused(garbled)


def test_missing_arrays_are_named(tmp_path):
    state = huggingface_names.to_state_dict(parameters_of(SMALL), SMALL)
    del state["wav2vec2.encoder.layer_norm.bias"]
    message = refused(write_folder(tmp_path / "m", state=state))
    assert "lacks 1 arrays" in message
    assert "wav2vec2.encoder.layer_norm.bias" in message
    # A deeper model than its weights.
    assert "encoder.layers.2" in refused(write_folder(tmp_path / "deep", num_hidden_layers=3))
