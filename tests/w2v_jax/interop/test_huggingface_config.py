"""config.json and the feature extractor: every setting is taken, lent by a preset and said, or refused by
name."""

import dataclasses
import json

import pytest

from tests.configs import SMALL
from tests.w2v_jax.interop.made import POINTER, write_json
from w2v_jax.config import BASE, LARGE, LARGE_LV60, TINY, TRAINING_SETTINGS, WAV2VEC2_PRESETS, nearest_preset
from w2v_jax.errors import UserError
from w2v_jax.interop.huggingface_config import (
    OURS,
    extractor_settings_of,
    model_settings_of,
    read_extractor,
    read_stated,
)
from w2v_jax.interop.huggingface_names import CTC, ENCODER, PRE_TRAINING
from w2v_jax.interop.stated import describe, of_config, table


def write(folder, config=SMALL, kind=PRE_TRAINING, without=(), **changes):
    folder.mkdir()
    settings = model_settings_of(config, kind) | changes
    write_json(folder / "config.json", {k: v for k, v in settings.items() if k not in (OURS, *without)})
    write_json(folder / "preprocessor_config.json", extractor_settings_of(config))
    return folder


def refused(folder, read=read_stated):
    with pytest.raises(UserError) as error:
        read(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", WAV2VEC2_PRESETS)
def test_a_preset_comes_back_whole(tmp_path, name):
    preset = WAV2VEC2_PRESETS[name]
    write_json(tmp_path / "config.json", model_settings_of(preset, PRE_TRAINING))
    write_json(tmp_path / "preprocessor_config.json", extractor_settings_of(preset))
    resolved = read_stated(tmp_path).resolve()
    assert resolved.config == preset
    assert set(resolved.origins.values()) == {"config.json", f"config.json ({OURS})"}
    assert resolved.preset == name


@pytest.mark.parametrize("name", ["tiny", "large-lv60"])
def test_what_config_json_leaves_out_comes_from_the_preset_of_the_shape(tmp_path, name):
    preset = WAV2VEC2_PRESETS[name]
    resolved = read_stated(write(tmp_path / "m", preset, num_negatives=37)).resolve()
    lent = (
        "feature_penalty_weight",
        "encoder_gradient_scale",
        "gumbel_temperature_end",
        "diversity_warmup_updates",
    )
    for field in lent:
        assert getattr(resolved.config, field) == getattr(preset, field)
        assert resolved.origins[field] == f"preset {name} (of the same shape)"
    assert (resolved.config.num_negatives, resolved.origins["num_negatives"]) == (37, "config.json")
    lines = describe(resolved)
    assert any("num_negatives 37" in line and "from config.json" in line for line in lines)
    assert table(resolved)["num_negatives"] == {"value": 37, "from": "config.json"}
    assert resolved.config.scan_unroll == preset.scan_unroll


def test_a_shape_that_no_preset_has_borrows_from_the_nearest(tmp_path):
    resolved = read_stated(write(tmp_path / "m", TINY.replace(hidden_dim=64))).resolve()
    assert resolved.config.feature_penalty_weight == TINY.feature_penalty_weight
    assert resolved.origins["feature_penalty_weight"] == "preset tiny (the nearest; none has this shape)"
    assert nearest_preset(LARGE_LV60.replace(hidden_dim=1280, num_layers=48)) == "large-lv60"
    assert nearest_preset(LARGE.replace(positional_kernel=64)) == "large"
    assert nearest_preset(BASE.replace(num_layers=13)) == "base"


@pytest.mark.parametrize(("stated", "taken"), [(0.5, 0.5), (0.05, 0.65), (0.0, 0.65), (None, 0.65)])
def test_masks_of_fine_tuning_are_not_those_of_pretraining(tmp_path, stated, taken):
    without = () if stated is not None else ("mask_time_prob",)
    found = read_stated(write(tmp_path / "m", mask_time_prob=stated, mask_time_length=7, without=without))
    config = found.resolve().config
    assert (config.mask_probability, config.mask_span) == (taken, 7)
    assert any(f"mask_time_prob {stated}" in note for note in found.notes) == (stated in (0.05, 0.0))


def test_settings_of_fine_tuning_are_listed(tmp_path):
    notes = read_stated(write(tmp_path / "m", mask_feature_prob=0.1, final_dropout=0.0)).notes
    assert [note for note in notes if "not used" in note and "mask_feature_prob 0.1" in note]
    assert not any("final_dropout" in note for note in notes)


def test_outward_settings_carry_the_recipe():
    written = model_settings_of(TINY, PRE_TRAINING)
    assert (written["mask_time_prob"], written["mask_time_length"], written["mask_time_min_masks"]) == (
        0.65,
        5,
        2,
    )
    assert written[OURS]["gumbel_temperature_decay"] == 0.999
    # The classes that are fine-tuned mask as transformers does by default.
    assert [model_settings_of(TINY, kind)["mask_time_prob"] for kind in (ENCODER, CTC)] == [0.05, 0.05]
    # A foreign folder's own value stays.
    kept = {"mask_time_prob": None, "architectures": [PRE_TRAINING]}
    assert model_settings_of(TINY, PRE_TRAINING, kept)["mask_time_prob"] == 0.65
    kept["mask_time_prob"] = 0.075
    assert model_settings_of(TINY, PRE_TRAINING, kept)["mask_time_prob"] == 0.075


def test_a_run_folder_gives_presets_settings_back(tmp_path):
    resolved = read_stated(write(tmp_path / "m", TINY, num_negatives=37)).resolve()
    again = of_config(dataclasses.asdict(resolved.config), resolved.origins)
    assert again.resolve() == resolved
    assert set(again.origins) == {f for f in TRAINING_SETTINGS if "preset" not in resolved.origins[f]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu': this model has 'gelu' alone"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps 1e-06"),
        ({"quantization_config": {"bits": 8}}, "quantization_config"),
        ({"feat_extract_norm": "batch"}, "feat_extract_norm 'batch': expected group or layer"),
        ({"hidden_size": "768"}, "hidden_size '768': it must be of type int"),
        ({"do_stable_layer_norm": "false"}, "do_stable_layer_norm 'false'"),
        ({"mask_time_length": 2.5}, "mask_time_length 2.5"),
        ({"conv_stride": [5, "2", 2]}, "conv_stride"),
        ({"hidden_dropout": "0.1"}, "hidden_dropout '0.1': it must be a number"),
        ({"num_codevector_groups": 0}, "num_codevector_groups 0: it must be from 1 to 100000"),
        ({"num_hidden_layers": 10**30}, "it must be from 1 to 100000"),
        ({"initializer_range": 10**400}, "it must be a finite number, 0 or more"),
        ({"mask_feature_prob": "x"}, "mask_feature_prob 'x': it must be a number"),
        ({"conv_stride": [5, 0, 2]}, "conv_stride [5, 0, 2]: it must be from 1 to 100000"),
        ({"hidden_dropout": float("nan")}, "hidden_dropout nan: it must be from 0 to 1"),
        ({"hidden_dropout": 1.5}, "hidden_dropout 1.5: it must be from 0 to 1"),
        ({"mask_time_length": 0}, "mask_time_length 0: it must be from 1 to 100000"),
        ({"mask_time_min_masks": -1}, "mask_time_min_masks -1: it must be from 0 to 100000"),
        ({"mask_time_prob": -0.5}, "mask_time_prob -0.5: it must be from 0 to 1"),
    ],
)
def test_settings_that_are_not_followed_are_refused_by_name(tmp_path, changes, words):
    assert words in refused(write(tmp_path / "m", **changes))


# The feature extractor.


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("place", ["preprocessor_config.json", "processor_config.json"])
def test_normalisation_is_read_from_either_file(tmp_path, place, wanted):
    folder = write(tmp_path / "m")
    (folder / "preprocessor_config.json").unlink()
    settings = {"do_normalize": wanted, "sampling_rate": 16000}
    write_json(folder / place, {"feature_extractor": settings} if place.startswith("processor") else settings)
    stated = read_stated(folder)
    assert stated.shape().normalise_waveform == wanted
    assert not any("do_normalize" in note for note in stated.notes)


def test_the_newer_file_goes_first_and_a_contradiction_is_told(tmp_path):
    folder = write(tmp_path / "m")  # do_normalize false
    write_json(folder / "processor_config.json", {"feature_extractor": {"do_normalize": True}})
    stated = read_stated(folder)
    assert stated.shape().normalise_waveform
    assert any("goes before preprocessor_config.json" in note for note in stated.notes)
    # An older processor_config.json nests nothing.
    write_json(folder / "processor_config.json", {"processor_class": "Wav2Vec2Processor"})
    assert not read_stated(folder).shape().normalise_waveform


def test_a_normalisation_that_is_not_stated_is_told(tmp_path):
    folder = write(tmp_path / "m")
    (folder / "preprocessor_config.json").unlink()
    stated = read_stated(folder)
    assert stated.shape().normalise_waveform
    assert any("states no do_normalize" in note for note in stated.notes)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampling_rate": 8000}, "sampling_rate 8000: this project reads 16000 alone"),
        ({"feature_size": 80}, "feature_size 80"),
        ({"feature_extractor_type": "SeamlessM4TFeatureExtractor"}, "SeamlessM4TFeatureExtractor"),
        ({"do_normalize": "false"}, "do_normalize 'false'"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_other_extractors_are_refused_by_name(tmp_path, settings, words, nested):
    folder = write(tmp_path / "m")
    name = "processor_config.json" if nested else "preprocessor_config.json"
    write_json(folder / name, {"feature_extractor": settings} if nested else settings)
    assert words in refused(folder)


@pytest.mark.parametrize("setting", [{"padding_side": "left"}, {"padding_value": -1.0}])
def test_another_padding_is_told(tmp_path, setting):
    folder = write(tmp_path / "m")
    assert not any("not followed" in note for note in read_extractor(folder)[1])
    write_json(folder / "preprocessor_config.json", {"do_normalize": True, **setting})
    told = [note for note in read_extractor(folder)[1] if "not followed" in note]
    assert len(told) == 1
    assert next(iter(setting)) in told[0]


def test_padded_batches_get_an_attention_mask():
    assert extractor_settings_of(SMALL)["return_attention_mask"] is True
    kept = {"return_attention_mask": False, "do_normalize": True}
    written = extractor_settings_of(SMALL, kept)
    assert (written["return_attention_mask"], written["do_normalize"]) == (False, False)


# Files that are not what they seem.


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "processor_config.json"])
def test_pointers_are_named(tmp_path, name):
    folder = write(tmp_path / "m")
    (folder / name).write_text(POINTER)
    assert f"{name} is a Git LFS pointer, not the file itself: run git lfs pull" in refused(folder)
    (folder / name).write_text("/annex/objects/SHA256E-s3--ab.json\n")
    assert "git annex get" in refused(folder)
    (folder / name).write_text("../../blobs/0123")
    assert "is a link that was copied as a text" in refused(folder)
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "blobs" / "missing")
    assert "is a link to a file that is not there" in refused(folder)


@pytest.mark.parametrize(
    "start", ["<!DOCTYPE html><html>", "\n<html lang='en'>", "\ufeff<?xml version='1.0'?>"]
)
def test_a_web_page_is_named(tmp_path, start):
    folder = write(tmp_path / "m")
    (folder / "config.json").write_text(f"{start}<body>Sign in</body></html>", encoding="utf-8")
    assert "config.json is a web page, not the file itself: download it again" in refused(folder)


def test_brackets_without_end_are_one_line(tmp_path):
    folder = write(tmp_path / "m")
    (folder / "config.json").write_text("[" * 200_000)
    assert "is not a config.json" in refused(folder)


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    folder = write(tmp_path / "m")
    (folder / "config.json").write_bytes(b"\xef\xbb\xbf" + (folder / "config.json").read_bytes())
    assert read_stated(folder).shape().hidden_dim == SMALL.hidden_dim


def test_a_folder_around_the_model_names_it(tmp_path):
    hub = tmp_path / "models--made--up"
    for name in ("0123", "4567"):
        (hub / "snapshots").mkdir(parents=True, exist_ok=True)
        write(hub / "snapshots" / name)
    words = refused(hub)
    assert f"give {hub / 'snapshots' / '0123'} or {hub / 'snapshots' / '4567'}" in words
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("4567\n")
    assert refused(hub).endswith(
        f"the root of a model in a Hugging Face cache: give {hub / 'snapshots' / '4567'}"
    )
    assert str(hub / "snapshots" / "0123") in refused(tmp_path)
    trainer = tmp_path / "output"
    trainer.mkdir()
    write(trainer / "checkpoint-500")
    assert refused(trainer).endswith(f"a folder around models: give {trainer / 'checkpoint-500'}")


def test_an_extractor_is_kept_as_it_is(tmp_path):
    folder = write(tmp_path / "m")
    settings = {"do_normalize": False, "return_attention_mask": False, "padding_value": 0.0}
    write_json(folder / "preprocessor_config.json", settings)
    assert read_extractor(folder)[0] == settings
    assert json.loads(json.dumps(extractor_settings_of(SMALL, settings))).items() >= settings.items()
