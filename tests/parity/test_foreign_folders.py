"""Folders as transformers itself writes and reads them (make parity): settings, files, padded batches."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="make parity installs torch and transformers")

import jax
import jax.numpy as jnp
import torch
import transformers
from safetensors.numpy import load_file, save_file

from tests.configs import VARIANTS
from tests.parity import reference
from tests.parity.compare import INTERMEDIATE_TOLERANCE, relative
from tests.w2v_jax.interop import made
from tests.w2v_jax.interop.test_huggingface_vocabulary import CASES
from tests.w2v_jax.interop.test_huggingface_vocabulary import write as write_vocabulary
from w2v_jax.config import LARGE_LV60, TINY, WAV2VEC2_PRESETS
from w2v_jax.interop import huggingface_config, huggingface_names
from w2v_jax.interop.huggingface_config import model_settings_of, read_extractor, read_stated
from w2v_jax.interop.huggingface_folder import read_config, read_encoder, read_model, write_model
from w2v_jax.interop.huggingface_names import CTC, ENCODER, KINDS, PRE_TRAINING
from w2v_jax.interop.huggingface_weights import read_arrays
from w2v_jax.model.wav2vec2 import Encoder
from w2v_jax.objective.pretraining import bind

pytestmark = pytest.mark.parity

# Fields of transformers' configuration that change neither this model's results nor its training.
WITHOUT_EFFECT = {
    "apply_spec_augment", "mask_feature_length", "mask_feature_min_masks", "ctc_loss_reduction",
    "ctc_zero_infinity", "use_weighted_layer_sum", "classifier_proj_size", "tdnn_dim", "tdnn_kernel",
    "tdnn_dilation", "xvector_output_dim", "bos_token_id", "eos_token_id", "adapter_kernel_size",
    "adapter_stride", "num_adapter_layers", "output_hidden_size", "vocab_size", "pad_token_id",
    "num_feat_extract_layers",
}  # fmt: skip
SAMPLES = [900, 640, 731]


def waves():
    rng = np.random.default_rng(0)
    return [(0.3 * rng.standard_normal(length)).astype(np.float32) for length in SAMPLES]


def ours_of(folder):
    """Hidden states of a padded batch by our reading of a folder, and which frames are valid."""
    config, parameters = read_encoder(folder)
    waveform = np.zeros((len(SAMPLES), max(SAMPLES)), np.float32)
    for row, wave in enumerate(waves()):
        waveform[row, : len(wave)] = wave
    _, apply = bind(lambda key: Encoder(config, key))
    encoded = jax.jit(apply)(parameters, jnp.asarray(waveform), jnp.asarray(SAMPLES))
    return np.asarray(encoded.context), np.asarray(encoded.valid)


def theirs_of(folder):
    """The same by transformers, with all that its feature extractor returns."""
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    inputs = extractor(waves(), sampling_rate=16_000, padding=True, return_tensors="pt")
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(**inputs).last_hidden_state.numpy(), set(inputs)


def agree(folder):
    expected, _ = theirs_of(folder)
    found, valid = ours_of(folder)
    assert relative(found[valid], expected[valid]) < INTERMEDIATE_TOLERANCE


def test_every_field_of_transformers_configuration_is_accounted_for():
    known = {name for name, _ in huggingface_config._SHAPE.values()}
    known |= set(huggingface_config._TRAINING.values()) | set(huggingface_config._FIXED)
    known |= set(huggingface_config._FINE_TUNING) | WITHOUT_EFFECT
    own = set(transformers.Wav2Vec2Config().to_dict()) - set(transformers.PretrainedConfig().to_dict())
    assert own - known == set()


@pytest.mark.parametrize("name", WAV2VEC2_PRESETS)
def test_a_configuration_that_transformers_saves_again_keeps_the_recipe(tmp_path, name):
    made.write_json(tmp_path / "config.json", model_settings_of(WAV2VEC2_PRESETS[name], PRE_TRAINING))
    transformers.Wav2Vec2Config.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=WAV2VEC2_PRESETS[name].normalise_waveform)
    extractor.save_pretrained(tmp_path / "again")
    assert read_config(tmp_path / "again") == WAV2VEC2_PRESETS[name]


def test_a_configuration_of_transformers_alone_borrows_from_the_preset_of_its_shape(tmp_path):
    settings = model_settings_of(LARGE_LV60, PRE_TRAINING)
    config = reference.transformers_config(LARGE_LV60)
    config.mask_time_prob = 0.075  # as the published checkpoint has it
    config.save_pretrained(tmp_path)
    found = read_stated(tmp_path).resolve()
    for field in (
        "feature_penalty_weight",
        "encoder_gradient_scale",
        "gumbel_temperature_end",
        "mask_probability",
    ):
        assert getattr(found.config, field) == getattr(LARGE_LV60, field) == settings["w2v_jax"][field]
        assert found.origins[field] == "preset large-lv60 (of the same shape)"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_padded_batch_of_a_model_trained_here(tmp_path, variant):
    config = VARIANTS[variant].replace(normalise_waveform=variant == "layer-norm")
    state = {name: p.detach().numpy() for name, p in reference.random_model(config, 4).named_parameters()}
    parameters = huggingface_names.from_state_dict(state, config)
    write_model(tmp_path / "hf", PRE_TRAINING, config, parameters)
    assert theirs_of(tmp_path / "hf")[1] == {"input_values", "attention_mask"}
    agree(tmp_path / "hf")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("named", [None, [ENCODER]])
def test_classes_that_config_json_does_not_name(tmp_path, kind, named):
    folder = made.write_folder(tmp_path / "hf", TINY.replace(num_layers=1), kind, architectures=named)
    made.write_json(
        folder / "preprocessor_config.json", {"do_normalize": True, "return_attention_mask": True}
    )
    assert read_model(folder).kind == kind
    agree(folder)


def test_the_files_that_transformers_reads(tmp_path):
    folder = made.write_folder(tmp_path / "hf", VARIANTS["group-norm"], CTC)
    zeros = {name: 0 * value for name, value in load_file(folder / "model.safetensors").items()}
    for stray in ("model_1.safetensors", "model_old.safetensors"):
        save_file(zeros, folder / stray, metadata={"format": "pt"})
    model = transformers.Wav2Vec2ForCTC.from_pretrained(folder)
    model.save_pretrained(tmp_path / "shards", max_shard_size="2KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").is_file()
    save_file(zeros, tmp_path / "shards" / "model-00099-of-00099.safetensors", metadata={"format": "pt"})
    expected = {name: p.detach().numpy() for name, p in model.named_parameters()}
    for place in (folder, tmp_path / "shards"):
        found = huggingface_names._renamed(read_arrays(place))
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("normalises", [False, True])
def test_processors_of_this_version_are_read(tmp_path, normalises):
    write_vocabulary(tmp_path / "t", {"<pad>": 0, "|": 1, "a": 2})
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "t")
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalises, return_attention_mask=True)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(tmp_path / "p")
    assert (tmp_path / "p" / "processor_config.json").is_file()
    held, notes = read_extractor(tmp_path / "p")
    assert (held["do_normalize"], held["return_attention_mask"], notes) == (normalises, True, [])


@pytest.mark.parametrize("case", CASES)
def test_texts_of_ids_are_those_of_transformers(tmp_path, case):
    vocabulary, files, _, _, ids, text = CASES[case]
    folder = write_vocabulary(tmp_path / "m", vocabulary, **files)
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(folder)
    assert tokenizer.decode(ids, group_tokens=False) == text
