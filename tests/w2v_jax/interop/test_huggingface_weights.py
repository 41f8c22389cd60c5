"""Which files of a folder hold the model, which class it is, and what is left aside."""

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests import torch_files
from tests.configs import SMALL
from tests.w2v_jax.interop.made import POINTER, TOKENS, parameters_of, state_of, write_folder, write_json
from w2v_jax.errors import UserError
from w2v_jax.interop.huggingface_folder import kind_of, read_encoder, read_model
from w2v_jax.interop.huggingface_names import CTC, ENCODER, HEAD, KINDS, PRE_TRAINING
from w2v_jax.interop.huggingface_weights import array_names, read_arrays


def refused(folder, read=read_arrays):
    with pytest.raises(UserError) as error:
        read(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def sharded(folder, state, index="model.safetensors.index.json"):
    """Two shards that an index names."""
    names = sorted(state)
    (folder / "model.safetensors").unlink()
    mapping = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
    for file in set(mapping.values()):
        save_file({name: state[name] for name in names if mapping[name] == file}, folder / file)
    write_json(folder / index, {"metadata": {}, "weight_map": mapping})
    return mapping


@pytest.mark.parametrize("stray", ["model_1.safetensors", "model_old.safetensors", "pytorch_model.bin"])
def test_stray_files_never_override_the_model(tmp_path, stray):
    folder = write_folder(tmp_path / "m", SMALL, PRE_TRAINING)
    expected = load_file(folder / "model.safetensors")
    zeros = {name: 0 * value for name, value in expected.items()}
    if stray.endswith(".bin"):
        torch_files.save(folder / stray, {name: torch_files.Tensor(value) for name, value in zeros.items()})
    else:
        save_file(zeros, folder / stray)
    same(read_arrays(folder), expected)
    notes = read_model(folder).stated.notes
    assert [note for note in notes if note.endswith(f"not read, as transformers does not: {stray}")]


def test_shards_are_those_of_the_index(tmp_path):
    folder = write_folder(tmp_path / "m", SMALL, PRE_TRAINING)
    expected = load_file(folder / "model.safetensors")
    mapping = sharded(folder, expected)
    save_file(
        {name: 0 * value for name, value in expected.items()}, folder / "model-00003-of-00003.safetensors"
    )
    same(read_arrays(folder), expected)
    assert array_names(folder) == expected.keys()
    lost = sorted(set(mapping.values()))[0]
    (folder / lost).unlink()
    assert f"names {lost}, which is not there" in refused(folder)
    (folder / lost).write_text(POINTER)
    assert "Git LFS pointer" in refused(folder)
    save_file({"another": np.zeros(1, np.float32)}, folder / lost)
    assert "lacks arrays that the index names" in refused(folder)


def test_an_index_names_files_of_its_folder_alone(tmp_path):
    folder = write_folder(tmp_path / "m", SMALL, PRE_TRAINING)
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "../other.safetensors"}})
    assert "which is no file of its folder" in refused(folder)
    write_json(folder / "model.safetensors.index.json", {})
    assert "it has no weight_map" in refused(folder)


def test_pickled_shards_have_an_index_too(tmp_path):
    folder = write_folder(tmp_path / "m", SMALL, PRE_TRAINING)
    expected = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(expected)
    mapping = {name: f"pytorch_model-{place % 2}.bin" for place, name in enumerate(names)}
    for file in set(mapping.values()):
        held = {name: torch_files.Tensor(expected[name]) for name in names if mapping[name] == file}
        torch_files.save(folder / file, held)
    write_json(folder / "pytorch_model.bin.index.json", {"weight_map": mapping})
    same(read_arrays(folder), expected)


def test_files_without_a_name_that_transformers_reads(tmp_path):
    folder = write_folder(tmp_path / "m", SMALL, PRE_TRAINING)
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    words = refused(folder)
    assert "holds model.fp16.safetensors, but neither model.safetensors nor an index" in words
    (folder / "model.fp16.safetensors").unlink()
    assert "it holds no weights" in refused(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_pointers_in_place_of_weights(tmp_path, name):
    folder = write_folder(tmp_path / "m", SMALL, CTC)
    (folder / "model.safetensors").unlink()
    (folder / name).write_text(POINTER)
    for read in (read_arrays, read_encoder, read_model):
        assert f"{name} is a Git LFS pointer, not the file itself: run git lfs pull" in refused(folder, read)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_web_pages_and_texts_in_place_of_weights(tmp_path, name):
    folder = write_folder(tmp_path / "m", SMALL, CTC)
    (folder / "model.safetensors").unlink()
    for read in (read_arrays, read_model):
        (folder / name).write_text("<!DOCTYPE html>\n<html><title>Größe</title></html>", encoding="utf-8")
        assert f"{name} is a web page, not the file itself: download it again" in refused(folder, read)
        (folder / name).write_text("Entry not found\n")
        assert f"{name} is a text, not weights: download it again" in refused(folder, read)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    folder = write_folder(tmp_path / "m", SMALL, PRE_TRAINING)
    state = load_file(folder / "model.safetensors")
    name = "wav2vec2.encoder.layers.1.attention.k_proj.bias"
    state[name][3] = value
    save_file(state, folder / "model.safetensors")
    for read in (read_encoder, read_model):
        assert refused(folder, read).endswith(f"weights that are NaN or infinite: {name}")


def test_settings_of_the_class_that_are_none(tmp_path):
    for number, stated in enumerate(("x", 0, 10**30)):
        folder = write_folder(tmp_path / f"{number}", SMALL, CTC, vocab_size=stated)
        words = f"vocab_size {stated!r}: it must be a whole number from 1 to 100000"
        assert words in refused(folder, read_model)
    folder = write_folder(tmp_path / "n", SMALL, CTC, architectures=5)
    assert "architectures 5: it must be a list of names" in refused(folder, read_model)


def test_whole_numbers_are_no_weights(tmp_path):
    folder = write_folder(tmp_path / "m", SMALL, PRE_TRAINING)
    state = load_file(folder / "model.safetensors")
    state["project_hid.weight"] = state["project_hid.weight"].astype(np.int8)
    save_file(state, folder / "model.safetensors")
    assert "no weights in floating point: project_hid.weight (int8)" in refused(folder)


def test_sixteen_bits_are_weights(tmp_path):
    folder = write_folder(tmp_path / "m", SMALL, PRE_TRAINING)
    state = load_file(folder / "model.safetensors")
    half = {name: value.astype(ml_dtypes.bfloat16) for name, value in state.items()}
    save_file(half, folder / "model.safetensors")
    same(read_arrays(folder), {name: value.astype(np.float32) for name, value in half.items()})


# The class.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("named", [None, [], [ENCODER]])
def test_the_arrays_tell_the_class_that_config_json_does_not(tmp_path, kind, named):
    folder = write_folder(tmp_path / "m", SMALL, kind, architectures=named)
    assert kind_of(folder) == kind
    model = read_model(folder)
    assert model.kind == kind
    jax.tree.map(np.testing.assert_array_equal, model.parameters, dict(parameters_of(SMALL, kind)))
    told = [note for note in model.stated.notes if f"the arrays are those of {kind}" in note]
    assert len(told) == (named != [kind])


def test_a_head_without_its_vocabulary_is_left_aside(tmp_path):
    folder = write_folder(tmp_path / "m", SMALL, CTC, architectures=[ENCODER])
    (folder / "vocab.json").unlink()
    model = read_model(folder)
    assert (model.kind, HEAD in model.parameters) == (ENCODER, False)
    aside = "no such arrays: lm_head.bias, lm_head.weight"
    assert any(note.endswith(aside) for note in model.stated.notes)


def test_heads_of_another_class_are_left_aside_and_told(tmp_path):
    folder = write_folder(tmp_path / "m", SMALL, CTC)
    state = state_of(SMALL, PRE_TRAINING) | load_file(folder / "model.safetensors")
    save_file(state, folder / "model.safetensors")
    model = read_model(folder)
    assert model.kind == CTC
    assert any("left aside" in note and "quantizer.codevectors" in note for note in model.stated.notes)


def test_scores_are_counted_where_config_json_does_not(tmp_path):
    folder = write_folder(tmp_path / "m", SMALL, CTC, vocab_size=None)
    assert read_model(folder).parameters[HEAD]["bias"].shape == (len(TOKENS),)


@pytest.mark.parametrize("kind", KINDS)
def test_both_readers_take_a_model_without_a_mask_embedding(tmp_path, kind):
    folder = write_folder(tmp_path / "m", SMALL, kind, mask_time_prob=0.0)
    state = load_file(folder / "model.safetensors")
    state = {name: value for name, value in state.items() if "masked_spec_embed" not in name}
    save_file(state, folder / "model.safetensors")
    model = read_model(folder)
    for parameters in (model.parameters, read_encoder(folder)[1]):
        np.testing.assert_array_equal(parameters["mask_embedding"], np.zeros(SMALL.hidden_dim, np.float32))
    assert any("the mask embedding is zero" in note for note in model.stated.notes)


def test_long_lists_of_names_are_cut(tmp_path):
    folder = write_folder(tmp_path / "m", SMALL, PRE_TRAINING)
    arrays = load_file(folder / "model.safetensors").values()
    save_file({f"x{number}": array for number, array in enumerate(arrays)}, folder / "model.safetensors")
    words = refused(folder, read_model)
    assert f"and {len(arrays) - 6} more" in words
    assert len(words) < 1000
