"""Keyword runs as Wav2Vec2ForSequenceClassification and back: the same scores, and what is refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.models import encoders
from experiments.models.converted_folders import save_checkpoint
from experiments.models.keyword_spotters import SETTINGS, open_keyword_spotter
from tests.configs import VARIANTS
from tests.experiments.cli.test_commands import fails
from tests.experiments.models.test_convert import PROJECTION_DIM, WORDS, bits, convert, write_folder
from w2v_jax.errors import UserError
from w2v_jax.interop.huggingface_folder import read_model
from w2v_jax.interop.huggingface_names import CLASSIFIER, CTC, ENCODER
from w2v_jax.model.wav2vec2 import Encoder
from w2v_jax.objective.pretraining import bind
from w2v_jax.recognition.keywords import KeywordHeadConfig, KeywordSpotterConfig, keyword_spotter

CONFIG = VARIANTS["group-norm"]
WAVEFORM = (0.3 * np.random.default_rng(5).standard_normal(900)).astype(np.float32)


def scores_of(run):
    """Logits of a keyword run for one clip, by our own functions."""
    opened = open_keyword_spotter(run)
    return np.asarray(
        jax.jit(opened.spotter.scores)(
            *opened.best_checkpoint(), jnp.asarray(WAVEFORM)[None], jnp.array([WAVEFORM.size])
        )[0]
    )


def expected_scores(folder, weighted):
    """Logits as transformers defines them, in NumPy over the layers of our encoder."""
    held = read_model(folder)
    _, apply = bind(lambda key: Encoder(held.config.replace(masked_group_norm=True), key))
    encoder = {name: value for name, value in held.parameters.items() if name != "head"}
    encode = jax.jit(lambda parameters, *inputs: apply(parameters, *inputs, method="encode"))
    encoded, outputs = encode(encoder, jnp.asarray(WAVEFORM)[None], jnp.array([WAVEFORM.size]))
    x, state = np.asarray(encoded.context[0]), load_file(folder / "model.safetensors")
    if weighted:
        layers = [outputs["layers_input"][0], *outputs["hidden_layers"][:-1, 0], x]
        shares = np.exp(state["layer_weights"]) / np.exp(state["layer_weights"]).sum()
        x = sum(share * np.asarray(layer) for share, layer in zip(shares, layers, strict=True))
    x = x @ state["projector.weight"].T + state["projector.bias"]
    return x.mean(0) @ state["classifier.weight"].T + state["classifier.bias"]


@pytest.mark.parametrize("weighted", [True, False])
def test_a_classifier_gives_the_scores_that_transformers_defines(tmp_path, weighted, capfd):
    folder = write_folder(tmp_path / "hf", CONFIG, CLASSIFIER, use_weighted_layer_sum=weighted)
    ours = convert(folder, tmp_path / "ours")
    assert ("left aside" in capfd.readouterr().out) == (not weighted)
    assert open_keyword_spotter(ours).classes == list(WORDS)
    np.testing.assert_allclose(scores_of(ours), expected_scores(folder, weighted), rtol=1e-4, atol=1e-4)
    # An encoder alone, as fine-tuning begins from both.
    for init in (str(ours), f"hf:{folder}"):
        source = encoders.load(init, None)
        found = np.asarray(source.parameters["mask_embedding"])
        np.testing.assert_array_equal(
            found, load_file(folder / "model.safetensors")["wav2vec2.masked_spec_embed"]
        )


def own_run(folder, **head):
    """A keyword run of this project with random weights."""
    config = KeywordSpotterConfig(
        model=CONFIG.replace(masked_group_norm=True), head=KeywordHeadConfig(num_classes=3, **head)
    )
    parameters, statistics = jax.jit(keyword_spotter(config).objective.init)(jax.random.key(1))
    folder.mkdir()
    save_checkpoint(folder / "best", jax.device_get({"parameters": parameters, "statistics": statistics}))
    held = {**dataclasses.asdict(config), "classes": list(WORDS)}
    (folder / SETTINGS).write_text(json.dumps(held))
    return folder


@pytest.mark.parametrize("head", [{}, {"projection": PROJECTION_DIM, "weighted_layers": True}])
def test_a_run_of_our_own_there_and_back(tmp_path, head):
    run = own_run(tmp_path / "run", **head)
    folder = convert(run, tmp_path / "hf")
    settings = json.loads((folder / "config.json").read_text())
    assert settings["architectures"] == [CLASSIFIER]
    assert settings["id2label"] == {"0": "yes", "1": "no", "2": "up"}
    assert settings["label2id"] == {"yes": 0, "no": 1, "up": 2}
    assert settings["classifier_proj_size"] == head.get("projection", CONFIG.hidden_dim)
    assert settings["use_weighted_layer_sum"] == head.get("weighted_layers", False)
    np.testing.assert_allclose(expected_scores(folder, bool(head)), scores_of(run), rtol=1e-4, atol=1e-5)
    again = convert(folder, tmp_path / "again")
    np.testing.assert_allclose(scores_of(again), scores_of(run), rtol=1e-4, atol=1e-5)
    assert bits(convert(again, tmp_path / "hf again")) == bits(folder)


def test_heads_that_transformers_lacks(tmp_path, capfd):
    run = own_run(tmp_path / "run", num_blocks=1, width=4, segments=2, pooling="attentive")
    line = fails(capfd, "convert", str(run), "--out", str(tmp_path / "hf"))
    assert "1 blocks (--head-blocks), 2 parts (--segments), attentive pooling (--pooling)" in line
    line = fails(capfd, "convert", str(run), "--out", str(tmp_path / "hf"), "--kind", CTC)
    assert "is a keyword spotter on encoder, and has no such heads" in line
    assert not (tmp_path / "hf").exists()
    assert "classifier.weight" not in bits(convert(run, tmp_path / "encoder", "--kind", ENCODER))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"id2label": {"0": "yes", "1": "no"}}, "id2label of 2 classes: it must name those from 0 to 2"),
        ({"id2label": {"0": "yes", "1": "no", "2": "no"}}, "a name of two classes"),
        ({"id2label": ["yes", "no", "up"]}, "it must be a table of names by number"),
        ({"classifier_proj_size": 0}, "classifier_proj_size 0: it must be a whole number from 1"),
        ({"use_weighted_layer_sum": "yes"}, "it must be true or false"),
        ({"classifier_proj_size": 7}, "projector.weight (6, 16), expected (7, 16)"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path, changes, told):
    folder = write_folder(tmp_path / "hf", CONFIG, CLASSIFIER, **changes)
    with pytest.raises(UserError) as error:
        read_model(folder)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_classes_without_names_are_numbered(tmp_path):
    folder = write_folder(tmp_path / "hf", CONFIG, CLASSIFIER)
    settings = json.loads((folder / "config.json").read_text())
    kept = {
        name: value for name, value in settings.items() if name not in ("id2label", "classifier_proj_size")
    }
    (folder / "config.json").write_text(json.dumps(kept))
    assert read_model(folder).settings["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    state = load_file(folder / "model.safetensors")
    save_file(state | {"lm_head.bias": np.zeros(3, np.float32)}, folder / "model.safetensors")
    assert any("lm_head.bias" in note for note in read_model(folder).stated.notes)
