"""Settings of fairseq's checkpoints: taken, refused by name, or listed."""

import argparse

import pytest

from tests import fairseq_files, torch_files
from tests.w2v_jax.interop.made import parameters_of
from w2v_jax.config import BASE, LARGE_LV60
from w2v_jax.errors import UserError
from w2v_jax.interop import fairseq
from w2v_jax.interop.fairseq_settings import Held, held_settings, read_settings
from w2v_jax.interop.huggingface_names import PRE_TRAINING

PUBLISHED = "[(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8,2,2)] + [(8,2,2)]"
NEWER = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


def write(path, variant="group", rename=lambda name: name, *, old=False, **parts):
    """A checkpoint whose `cfg` has these parts, or whose `args` have all that is in them."""
    config = fairseq_files.config_of(variant)
    arrays = fairseq_files.arrays_of(config, parameters_of(config, PRE_TRAINING))
    parts["model"] = {"encoder_attention_heads": 4, "encoder_layerdrop": 0.2} | parts.get("model", {})
    held = {name: value for part in parts.values() for name, value in part.items()}
    settings = {"args": argparse.Namespace(**held)} if old else {"cfg": parts, "args": None}
    torch_files.save(path, settings | {"model": {rename(name): value for name, value in arrays.items()}})
    return path


def stated(path, *arguments, **parts):
    return fairseq.read_model(write(path, *arguments, **parts))[0]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"task": {"normalize": True}}, {"normalise_waveform": True}),
        (
            {"model": {"latent_temp": (2.0, 0.1, 0.99)}},
            {"gumbel_temperature_end": 0.1, "gumbel_temperature_decay": 0.99},
        ),
        ({"model": {"latent_temp": "(1, 0.1, 0.99)"}}, {"gumbel_temperature_start": 1.0}),
        (
            {"criterion": {"loss_weights": [0.2, 0.0]}},
            {"diversity_weight": 0.2, "feature_penalty_weight": 0.0},
        ),
        (
            {"criterion": {"loss_weights": "[0.2, 5]"}},
            {"diversity_weight": 0.2, "feature_penalty_weight": 5.0},
        ),
        ({"criterion": {"loss_weights": [0.3]}}, {"diversity_weight": 0.3, "feature_penalty_weight": 0.3}),
        ({"criterion": {"loss_weights": None}}, {"diversity_weight": 0.0, "feature_penalty_weight": 0.0}),
        ({"model": {"conv_feature_layers": PUBLISHED}}, {"conv_strides": (5, 2, 2, 2, 2, 2, 2)}),
        (
            {"model": {"conv_feature_layers": PUBLISHED.replace("2,2", "2,1")}},
            {"conv_strides": (5, 2, 2, 2, 2, 1, 1)},
        ),
        ({"model": {"mask_prob": 0.5, "mask_length": 7}}, {"mask_probability": 0.5, "mask_span": 7}),
        ({"model": {"feature_grad_mult": 1}}, {"encoder_gradient_scale": 1.0}),
    ],
)
def test_settings_are_taken(tmp_path, parts, expected, old):
    found = stated(tmp_path / "m.pt", old=old, **parts)
    config = found.resolve().config
    assert {field: getattr(config, field) for field in expected} == expected
    for field in expected.keys() & found.origins.keys():
        assert ("args" in found.origins[field]) == old


@pytest.mark.parametrize("wanted", [True, False])
def test_normalisation_is_the_tasks_and_not_the_norms(tmp_path, wanted):
    found = stated(tmp_path / "m.pt", "layer", task={"normalize": wanted})
    assert found.shape().normalise_waveform == wanted


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"task": {"sample_rate": 8000}}, "sample_rate 8000: this model has 16000 alone"),
        ({"model": {"activation_fn": "relu"}}, "activation_fn 'relu': this model has 'gelu' alone"),
        ({"model": {"layer_type": "conformer"}}, "layer_type 'conformer'"),
        ({"model": {"conv_feature_layers": "[(8, 10, 5)]"}}, "conv_feature_layers has other convolutions"),
        ({"model": {"conv_feature_layers": "__import__('os')"}}, "conv_feature_layers"),
        ({"model": {"latent_temp": (2.0, 0.1)}}, "latent_temp"),
        ({"criterion": {"loss_weights": "much"}}, "loss_weights"),
        ({"model": {"mask_prob": True}}, "mask_prob True"),
        ({"model": {"layer_norm_first": 1}}, "layer_norm_first 1"),
        ({"model": {"mask_prob": float("nan")}}, "mask_prob nan: it must be from 0 to 1"),
        ({"model": {"encoder_layerdrop": 1.5}}, "encoder_layerdrop 1.5: it must be from 0 to 1"),
        ({"model": {"latent_groups": 0}}, "latent_groups 0: it must be from 1 to 100000"),
        ({"criterion": {"loss_weights": [float("inf")]}}, "loss_weights inf"),
        ({"model": {"pos_enc_type": "rope"}}, "pos_enc_type 'rope': this model has 'abs' alone"),
        ({"model": {"attn_type": "espnet"}}, "attn_type 'espnet': this model has '' alone"),
        ({"model": {"pos_conv_depth": 5}}, "pos_conv_depth 5: this model has 1 alone"),
        ({"model": {"conv_feature_layers": "-" * 20_000 + "1"}}, "---... is not understood"),
        ({"model": {"conv_feature_layers": "[(8,2,2)]" + " + [(8,2,2)]" * 5000}}, "... is not understood"),
        ({"model": {"conv_feature_layers": "[(8, 2, 2)]" + " * 100" * 3}}, "is not understood"),
        ({"model": {"conv_feature_layers": [(8, 10, float("inf"))]}}, "is not understood"),
        ({"model": {"latent_temp": "-" * 20_000 + "1"}}, "---... is not understood"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, parts, words):
    with pytest.raises(UserError) as error:
        stated(tmp_path / "m.pt", **parts)
    assert words in str(error.value)
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_what_is_assumed_or_not_followed_is_listed(tmp_path):
    found = stated(tmp_path / "m.pt", model={"codebook_negatives": 10, "mask_selection": "static"})
    notes = " / ".join(found.notes)
    assert "not followed: codebook_negatives 10" in notes
    assert "as in the published models: conv_strides (5, 2, 2, 2, 2, 2, 2)" in notes
    assert "normalise_waveform False" in notes
    told = (
        {"normalize": False},
        {"conv_feature_layers": PUBLISHED, "layer_norm_first": False, "latent_groups": 2},
    )
    assert not stated(tmp_path / "m.pt", task=told[0], model=told[1]).notes


def test_what_is_not_stated_comes_from_the_nearest_preset(tmp_path):
    resolved = stated(tmp_path / "m.pt", model={"logit_temp": 0.2}).resolve()
    assert resolved.config.feature_penalty_weight == BASE.feature_penalty_weight
    assert resolved.origins["feature_penalty_weight"].startswith("preset base (the nearest")
    found = stated(tmp_path / "m.pt", "layer").resolve().config
    assert found.feature_penalty_weight == LARGE_LV60.feature_penalty_weight != BASE.feature_penalty_weight
    assert resolved.origins["contrastive_temperature"] == "fairseq's cfg.model"


def test_the_newer_spelling_of_the_weight_norm(tmp_path):
    def newer(name):
        stem, _, last = name.rpartition(".")
        return f"{stem}.{NEWER[last]}" if last in NEWER else name

    _, older = fairseq.read_model(write(tmp_path / "old.pt"))
    _, found = fairseq.read_model(write(tmp_path / "new.pt", rename=newer))
    positional = found["context_network"]["positional"]
    for name, value in older["context_network"]["positional"].items():
        assert (positional[name] == value).all()


def test_interpolations_and_numbers_as_text():
    held = held_settings({"cfg": {"model": {"normalize": "${task.normalize}", "dropout": "0.25"}}})
    assert held.model == {"normalize": None, "dropout": "0.25"}
    assert read_settings(held).values == {"dropout": 0.25}
    assert read_settings(Held({}, {}, {}, "args")) == ({}, {}, None, [])
