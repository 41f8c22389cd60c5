"""Models that runs begin from: their training settings, where each comes from, and their recipe."""

import dataclasses
import json

import pytest
from safetensors.numpy import load_file, save_file

from experiments.cli import main as cli
from experiments.models import encoders
from experiments.models.encoders import Source
from experiments.process.files import read_json
from tests import fairseq_files, torch_files
from tests.configs import SMALL
from tests.experiments.cli.test_commands import fails
from tests.w2v_jax.interop.made import POINTER, parameters_of, write_folder, write_json
from w2v_jax.config import BASE, LARGE_LV60, TINY, nearest_preset
from w2v_jax.errors import UserError
from w2v_jax.interop.huggingface_config import OURS, model_settings_of
from w2v_jax.interop.huggingface_names import CTC, ENCODER, PRE_TRAINING

MASK = "masked_spec_embed"


def convert(source, out):
    assert cli.main(["convert", str(source), "--out", str(out)]) == 0
    return out


def test_tiny_keeps_its_recipe_through_hugging_face(tmp_path, capfd):
    folder = write_folder(tmp_path / "hf", TINY, PRE_TRAINING)
    ours = convert(folder, tmp_path / "ours")
    back = convert(ours, tmp_path / "back")
    assert json.loads((back / "config.json").read_text())["mask_time_prob"] == TINY.mask_probability
    capfd.readouterr()
    for init in (f"hf:{folder}", str(ours), f"hf:{back}"):
        resolved, _ = encoders.pretraining_settings(init)
        assert resolved.config == TINY
        assert encoders.pretraining_choice(init, None, None)[0] == "tiny"
        source = encoders.load(init, None)
        assert source.description["recipe"] == "tiny"
        assert source.notes[0] == "fine-tuning recipe: tiny's, by the shape of the encoder"
        assert source.description["settings"]["layer_drop"] == {"value": 0.0, "from": "config.json"}


def test_a_foreign_checkpoint_borrows_from_the_preset_of_its_shape(tmp_path):
    """Its arrays are not looked at."""
    folder = write_folder(tmp_path / "hf", SMALL, PRE_TRAINING)
    settings = model_settings_of(LARGE_LV60, PRE_TRAINING) | {"mask_time_prob": 0.075}
    write_json(folder / "config.json", {k: v for k, v in settings.items() if k != OURS})
    for model in ("large-lv60", None):
        name, config = encoders.pretraining_choice(f"hf:{folder}", model, None)
        assert (name, config.feature_penalty_weight, config.encoder_gradient_scale) == (
            "large-lv60",
            0.0,
            1.0,
        )
        assert (config.gumbel_temperature_end, config.mask_probability) == (0.1, 0.65)
    with pytest.raises(UserError, match="another architecture than --model base"):
        encoders.pretraining_choice(f"hf:{folder}", "base", None)


def test_a_run_that_continues_keeps_its_choice(tmp_path):
    folder = write_folder(tmp_path / "hf", SMALL, PRE_TRAINING)
    init = f"hf:{folder}"
    held = SMALL.replace(feature_penalty_weight=3.0)
    settings = {"init": init, "model": "base", "model_config": dataclasses.asdict(held)}
    run = tmp_path / "run"
    run.mkdir()
    write_json(run / "config.json", {"settings": settings, "provenance": {}})
    assert encoders.pretraining_choice(init, None, run) == ("base", held)
    assert encoders.pretraining_choice(init, None, None)[1] != held
    write_json(run / "config.json", {"settings": settings | {"init": "another"}, "provenance": {}})
    assert encoders.pretraining_choice(init, None, run)[1] != held


def test_folders_of_an_older_convert_do_not_hold_the_base_models_settings(tmp_path, capfd):
    folder = write_folder(tmp_path / "hf", TINY, PRE_TRAINING)
    ours = convert(folder, tmp_path / "ours")
    held = read_json(ours / "config.json")
    del held["settings"]["settings_from"]
    stood_in = {"feature_penalty_weight": BASE.feature_penalty_weight, "mask_span": 7}
    held["settings"]["model_config"] |= stood_in
    write_json(ours / "config.json", held)
    resolved, _ = encoders.pretraining_settings(str(ours))
    assert (resolved.config.feature_penalty_weight, resolved.config.mask_span) == (0.0, 7)
    assert resolved.origins["mask_span"] == str(ours)
    capfd.readouterr()


@pytest.mark.parametrize(
    ("config", "recipe"),
    [(TINY, "tiny"), (BASE, "base"), (TINY.replace(hidden_dim=64), "tiny"), (LARGE_LV60, "large-lv60")],
)
@pytest.mark.parametrize("model", ["Hugging Face", "recognizer", "converted"])
def test_the_recipe_is_that_of_the_shape(tmp_path, config, recipe, model):
    source = Source(config, None, {"model": model, "recipe": nearest_preset(config)})
    assert encoders.recipe_of(source, tmp_path) == recipe
    # A run of an older version goes on with the recipe that it began with.
    write_json(tmp_path / "encoder.json", {"model": model})
    assert encoders.recipe_of(source, tmp_path) == "base"
    write_json(tmp_path / "encoder.json", {"model": model, "recipe": recipe})
    assert encoders.recipe_of(source, tmp_path) == recipe


def test_both_commands_take_a_model_without_a_mask_embedding(tmp_path, capfd):
    folder = write_folder(tmp_path / "hf", SMALL, ENCODER, mask_time_prob=0.0)
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if k != MASK}, folder / "model.safetensors")
    ours = convert(folder, tmp_path / "ours")
    assert f"has no {MASK}: the mask embedding is zero" in capfd.readouterr().out
    through, straight = encoders.load(str(ours), None), encoders.load(f"hf:{folder}", None)
    assert through.description["parameters_sha256"] == straight.description["parameters_sha256"]
    assert any(MASK in note for note in straight.notes)


def test_convert_tells_what_it_took_and_left(tmp_path, capfd):
    folder = write_folder(
        tmp_path / "hf", SMALL, CTC, pad_token_id=0, final_dropout=0.1, mask_time_prob=0.075
    )
    save_file(load_file(folder / "model.safetensors"), folder / "model_1.safetensors")
    write_json(folder / "preprocessor_config.json", {"do_normalize": False, "return_attention_mask": False})
    ours = convert(folder, tmp_path / "ours")
    words = capfd.readouterr().out
    for part in (
        "training settings from config.json: dropout 0",
        "not used, for they set fine-tuning in transformers: mask_time_prob 0.075, final_dropout 0.1",
        "not read, as transformers does not: model_1.safetensors",
        "the blank is <pad>, id 1 of the tokenizer; config.json states pad_token_id 0",
    ):
        assert part in words
    back = convert(ours, tmp_path / "back")
    assert "transformers normalises over padding too" in capfd.readouterr().out
    kept = json.loads((back / "preprocessor_config.json").read_text())
    assert (kept["do_normalize"], kept["return_attention_mask"]) == (False, False)


def test_fairseqs_settings_reach_the_run_folder(tmp_path, capfd):
    config = fairseq_files.config_of("group")
    arrays = fairseq_files.arrays_of(config, parameters_of(config, PRE_TRAINING))
    parts = {
        "task": {"normalize": True},
        "model": {"encoder_attention_heads": 4, "latent_temp": (2.0, 0.1, 0.5)},
    }
    torch_files.save(tmp_path / "m.pt", {"cfg": parts, "model": arrays})
    ours = convert(tmp_path / "m.pt", tmp_path / "ours")
    assert "from fairseq's cfg.model: gumbel_temperature_start 2" in capfd.readouterr().out
    settings = read_json(ours / "config.json")["settings"]
    assert settings["model_config"]["normalise_waveform"] is True
    assert settings["settings_from"]["gumbel_temperature_end"] == "fairseq's cfg.model"
    assert encoders.pretraining_settings(str(ours))[0].config.gumbel_temperature_end == 0.1


def test_pointers_and_outer_folders_are_named_by_every_command(tmp_path, capfd):
    snapshot = tmp_path / "models--made--up" / "snapshots" / "0123"
    write_folder(snapshot, SMALL, PRE_TRAINING)
    hub, out = tmp_path / "models--made--up", str(tmp_path / "converted")
    for argv in (
        ["convert", str(hub), "--out", out],
        ["finetune", "--init", f"hf:{hub}", "--out", str(tmp_path / "run")],
        ["finetune", "--init", str(hub), "--out", str(tmp_path / "run")],
        ["pretrain", "--init", f"hf:{hub}", "--out", str(tmp_path / "run")],
    ):
        assert f"give {snapshot}" in fails(capfd, *argv)
    (snapshot / "config.json").write_text(POINTER)
    (tmp_path / "m.pt").write_text(POINTER)
    for argv in (
        ["convert", str(snapshot), "--out", out],
        ["convert", str(tmp_path / "m.pt"), "--out", out],
        ["pretrain", "--init", f"hf:{snapshot}", "--out", str(tmp_path / "run")],
    ):
        assert "run git lfs pull" in fails(capfd, *argv)
