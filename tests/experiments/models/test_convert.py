"""convert: Hugging Face and fairseq to run folders and back, bit by bit; what is refused."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.cli import main as cli
from experiments.models import encoders
from experiments.models.converted_folders import save_checkpoint
from experiments.models.recognizers import open_recognizer
from tests import fairseq_files, torch_files
from tests.configs import VARIANTS
from tests.experiments.cli.test_commands import fails
from tests.torch_files import Evil, Tensor
from w2v_jax.config import PRESETS, TRAINING_SETTINGS
from w2v_jax.interop import fairseq, huggingface_names
from w2v_jax.interop.huggingface_classes import classifier_settings
from w2v_jax.interop.huggingface_config import model_settings_of
from w2v_jax.interop.huggingface_folder import read_model
from w2v_jax.interop.huggingface_names import (
    CLASSIFIER,
    CTC,
    ENCODER,
    HEAD,
    KINDS,
    PRE_TRAINING,
    WeightNorm,
)
from w2v_jax.objective.pretraining import bind_model
from w2v_jax.recognition.ctc import RecognizerConfig, collapse, recognizer
from w2v_jax.recognition.heads import HeadConfig
from w2v_jax.text.rules import TextRules
from w2v_jax.text.storage import save_tokenizer
from w2v_jax.text.tokenizers import CharacterTokenizer

TOKENS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6, "'": 7}
WORDS, PROJECTION_DIM = ("yes", "no", "up"), 6


@functools.cache
def parameters_of(config):
    """Nothing in them is zero or one by its nature."""
    made = jax.device_get(jax.jit(bind_model(config)[0])(jax.random.key(0)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: (x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32), made)


def write_folder(folder, config, kind, spelling: WeightNorm = "parametrizations", **changes):
    """As transformers would: arrays, config.json, and a vocabulary whose blank is not the first."""
    folder.mkdir(parents=True)
    parameters = dict(parameters_of(config))
    if kind == CTC:
        rng = np.random.default_rng(1)
        parameters[HEAD] = {
            "kernel": rng.standard_normal((config.hidden_dim, len(TOKENS))).astype(np.float32),
            "bias": rng.standard_normal(len(TOKENS)).astype(np.float32),
        }
        (folder / "vocab.json").write_text(json.dumps(TOKENS))
        changes = {"vocab_size": len(TOKENS), "pad_token_id": 1} | changes
    if kind == CLASSIFIER:
        parameters[HEAD] = classifier_head(config)
        changes = classifier_settings(WORDS, PROJECTION_DIM, weighted_layers=True) | changes
    state = huggingface_names.to_state_dict(parameters, config, kind, spelling)
    save_file(state, folder / "model.safetensors")
    settings = model_settings_of(config, kind, {"tokenizer_class": "kept", **changes}) | changes
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def classifier_head(config):
    """Make the arrays of a classifier's head, with weights of layers."""
    rng = np.random.default_rng(2)

    def linear(in_dim, out_dim):
        return {
            "kernel": rng.standard_normal((in_dim, out_dim), np.float32),
            "bias": rng.random(out_dim, np.float32),
        }

    return {
        "layer_weights": rng.standard_normal(config.num_layers + 1, np.float32),
        "projector": linear(config.hidden_dim, PROJECTION_DIM),
        "classifier": linear(PROJECTION_DIM, len(WORDS)),
    }


def convert(source, out, *options):
    assert cli.main(["convert", str(source), "--out", str(out), *options]) == 0
    return out


def bits(folder):
    return {name: (x.dtype, x.tobytes()) for name, x in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize(
    ("variant", "kind"),
    [
        pytest.param(variant, kind, marks=[pytest.mark.slow] * (variant == "layer-norm" and kind != CTC))
        for variant in VARIANTS
        for kind in KINDS
    ],
)
def test_there_and_back_is_bit_identical(tmp_path, variant, kind):
    source = write_folder(tmp_path / "hf", VARIANTS[variant], kind)
    ours = convert(source, tmp_path / "ours")
    back = convert(ours, tmp_path / "back")
    assert bits(back) == bits(source)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, back))
    assert before.items() <= after.items()
    if kind == CTC:
        assert json.loads((back / "vocab.json").read_text()) == TOKENS


@pytest.mark.slow
@pytest.mark.parametrize(("model", "kind"), [*(("base", kind) for kind in KINDS), ("large-lv60", CTC)])
def test_full_size_there_and_back(tmp_path, model, kind):
    source = write_folder(tmp_path / "hf", PRESETS[model], kind)
    back = convert(convert(source, tmp_path / "ours"), tmp_path / "back")
    assert bits(back) == bits(source)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != PRE_TRAINING)) for kind in KINDS]
)
def test_both_spellings_of_the_weight_norm(tmp_path, kind):
    config = VARIANTS["group-norm"]
    old = write_folder(tmp_path / "old", config, kind, "weight_g")
    new = write_folder(tmp_path / "new", config, kind)
    ours = convert(old, tmp_path / "ours")
    assert bits(convert(ours, tmp_path / "as new")) == bits(new)
    assert bits(convert(ours, tmp_path / "as old", "--weight-norm", "weight_g")) == bits(old)


def test_an_encoder_of_any_of_them(tmp_path):
    config = VARIANTS["layer-norm"]
    expected = bits(write_folder(tmp_path / "encoder", config, ENCODER))
    for kind in (PRE_TRAINING, CTC, CLASSIFIER):
        ours = convert(write_folder(tmp_path / kind, config, kind), tmp_path / f"ours {kind}")
        assert bits(convert(ours, tmp_path / f"out {kind}", "--kind", ENCODER)) == expected


def test_fine_tuning_begins_from_what_was_converted(tmp_path):
    config = VARIANTS["group-norm"]
    ours = convert(write_folder(tmp_path / "hf", config, PRE_TRAINING), tmp_path / "ours")
    source = encoders.load(str(ours), None)
    kept = ("feature_encoder", "feature_projection", "mask_embedding", "context_network")
    assert source.parameters is not None
    jax.tree.map(
        np.testing.assert_array_equal,
        dict(source.parameters),
        {name: parameters_of(config)[name] for name in kept},
    )


def scores_of(run, waveform):
    """Logits of a recognizer's folder, and what it writes."""
    opened = open_recognizer(run)
    logits, frames = jax.jit(opened.recognizer.scores)(
        *opened.best_checkpoint(), waveform[None], jnp.array([waveform.size])
    )
    text = opened.tokenizer.decode(collapse(np.asarray(logits[0].argmax(-1)), int(frames[0])))
    return np.asarray(logits[0]), text


def test_a_recognizer_of_our_own_there_and_back(tmp_path):
    """Its norm becomes part of its scores; letters and spaces are the same ones."""
    config = RecognizerConfig(
        model=VARIANTS["group-norm"].replace(masked_group_norm=True),
        head=HeadConfig(num_tokens=5, num_blocks=0),
    )
    parameters, statistics = jax.jit(recognizer(config).objective.init)(jax.random.key(0))
    rng = np.random.default_rng(3)
    parameters["head"]["output"] = {
        "kernel": rng.standard_normal((16, 5)).astype(np.float32),
        "bias": np.zeros(5, np.float32),  # else all frames are blank
    }

    def moved(x):
        return x + 0.2 * rng.random(x.shape).astype(np.float32)

    spread = jax.tree.map(moved, (parameters, statistics))
    run = tmp_path / "run"
    run.mkdir()
    save_checkpoint(run / "best", {"parameters": spread[0], "statistics": spread[1]})
    save_tokenizer(run, CharacterTokenizer(" abc"), TextRules())
    (run / "recognizer.json").write_text(json.dumps(dataclasses.asdict(config)))
    theirs = convert(run, tmp_path / "hf")
    assert json.loads((theirs / "vocab.json").read_text()) == {"<pad>": 0, "|": 1, "a": 2, "b": 3, "c": 4}
    again = convert(theirs, tmp_path / "again")
    waveform = jnp.asarray(0.3 * rng.standard_normal(4000), jnp.float32)
    (before, text), (after, same) = scores_of(run, waveform), scores_of(again, waveform)
    np.testing.assert_allclose(after, before, atol=1e-4)
    assert same == text
    assert len(set(text)) > 1


def test_fine_tuning_begins_from_a_recognizer(tmp_path):
    """Of another's CTC model the encoder is taken; its head has other letters."""
    folder = write_folder(tmp_path / "hf", VARIANTS["layer-norm"], CTC)
    source = encoders.load(str(convert(folder, tmp_path / "ours")), None)
    expected = dict(read_model(folder).parameters)
    del expected[HEAD]
    assert jax.tree.map(np.array_equal, source.parameters, expected) == jax.tree.map(lambda _: True, expected)
    assert source.config.pre_norm
    assert source.description["parameters_sha256"] == encoders.fingerprint(expected)


def test_messages_of_convert_name_the_source_alone(tmp_path, capfd):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({"settings": {}, "provenance": {}}))
    words = fails(capfd, "convert", str(tmp_path / "run"), "--out", str(tmp_path / "x"))
    assert "--init" not in words
    assert f"error: {tmp_path / 'run'} is not a run" in words


def test_heads_with_blocks_have_no_counterpart(tmp_path, capfd):
    config = RecognizerConfig(model=VARIANTS["group-norm"], head=HeadConfig(num_tokens=5, num_blocks=2))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recognizer.json").write_text(json.dumps(dataclasses.asdict(config)))
    save_tokenizer(tmp_path / "run", CharacterTokenizer(" abc"), TextRules())
    words = fails(capfd, "convert", str(tmp_path / "run"), "--out", str(tmp_path / "x"))
    assert "a head of 2 blocks, Wav2Vec2ForCTC has none: fine-tune with --head-blocks 0" in words


def test_models_without_a_mask_embedding(tmp_path):
    """transformers makes none where nothing is masked."""
    folder = write_folder(tmp_path / "hf", VARIANTS["group-norm"], ENCODER, mask_time_prob=0.0)
    state = load_file(folder / "model.safetensors")
    del state["masked_spec_embed"]
    save_file(state, folder / "model.safetensors")
    assert bits(convert(convert(folder, tmp_path / "ours"), tmp_path / "back")) == bits(folder)


def test_misfits_are_listed_by_name(tmp_path, capfd):
    folder = write_folder(tmp_path / "hf", VARIANTS["group-norm"], PRE_TRAINING)
    state = load_file(folder / "model.safetensors")
    state["surplus"] = state.pop("project_q.bias")
    state["project_hid.bias"] = np.zeros(3, np.float32)
    save_file(state, folder / "model.safetensors")
    words = fails(capfd, "convert", str(folder), "--out", str(tmp_path / "out"))
    assert "missing project_q.bias; unexpected surplus; of another shape project_hid.bias (3,)" in words
    assert "expected (8,)" in words
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("variant", ["group", pytest.param("layer", marks=pytest.mark.slow)])
def test_fairseqs_checkpoints(tmp_path, variant):
    config = fairseq_files.config_of(variant)
    fairseq_files.write(tmp_path / "m.pt", config, parameters_of(config))
    found, parameters = fairseq.read(tmp_path / "m.pt")
    stated = {"layer_drop", "encoder_gradient_scale"}
    lender = PRESETS["base" if variant == "group" else "large-lv60"]
    lent = {name: getattr(lender, name) for name in TRAINING_SETTINGS if name not in stated}
    assert found == config.replace(**lent)
    jax.tree.map(np.testing.assert_array_equal, parameters, dict(parameters_of(config)))
    ours = convert(tmp_path / "m.pt", tmp_path / "ours")
    model = read_model(convert(ours, tmp_path / "hf"))
    assert (model.kind, model.config.layer_drop) == (PRE_TRAINING, 0.2)


def test_a_pickle_that_runs_code_is_refused(tmp_path, capfd):
    folder = write_folder(tmp_path / "hf", VARIANTS["group-norm"], PRE_TRAINING)
    (folder / "model.safetensors").unlink()
    trace = tmp_path / "it ran"
    for path in (folder / "pytorch_model.bin", tmp_path / "m.pt"):
        torch_files.save(path, {"model": {}, "x": Evil(f"touch '{trace}'")})
        source = folder if path.parent == folder else path
        assert "is refused: its pickle names" in fails(
            capfd, "convert", str(source), "--out", str(tmp_path / "out")
        )
    assert not trace.exists()


def test_pickled_arrays_are_read(tmp_path):
    folder = write_folder(tmp_path / "hf", VARIANTS["group-norm"], PRE_TRAINING)
    expected = bits(folder)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch_files.save(folder / "pytorch_model.bin", {name: Tensor(value) for name, value in state.items()})
    assert bits(convert(convert(folder, tmp_path / "ours"), tmp_path / "back")) == expected


def test_what_cannot_be_converted(tmp_path, capfd):
    folder = write_folder(tmp_path / "hf", VARIANTS["group-norm"], ENCODER)
    ours = convert(folder, tmp_path / "ours")
    assert "not empty" in fails(capfd, "convert", str(folder), "--out", str(ours))
    assert "--kind is for what is written for Hugging Face" in fails(
        capfd, "convert", str(folder), "--out", str(tmp_path / "x"), "--kind", CTC
    )
    for kind in (CTC, PRE_TRAINING):
        words = fails(capfd, "convert", str(ours), "--out", str(tmp_path / "x"), "--kind", kind)
        assert "has no such heads" in words
    assert "no such" in fails(capfd, "convert", str(tmp_path / "nothing"), "--out", str(tmp_path / "x"))
    other = write_folder(
        tmp_path / "other", VARIANTS["group-norm"], PRE_TRAINING, architectures=["Wav2Vec2ForXVector"]
    )
    assert "names the architectures ['Wav2Vec2ForXVector']" in fails(
        capfd, "convert", str(other), "--out", str(tmp_path / "x")
    )
    assert not (tmp_path / "x").exists()
