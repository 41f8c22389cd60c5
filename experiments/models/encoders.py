"""Models that runs begin from: a fresh one, a run's, or one of a Hugging Face folder."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.models.keyword_spotters import is_keyword_spotter, open_keyword_spotter
from experiments.models.pretraining_runs import (
    CONVERTED,
    OPTION,
    ORIGINS,
    open_run,
    run_settings,
    stated_by,
)
from experiments.models.recognizers import is_recognizer, open_recognizer
from experiments.options.arguments import blaming
from experiments.process.files import read_json
from experiments.runs.best_round import BEST
from experiments.runs.folder import read_config
from w2v_jax import config as model_config
from w2v_jax.config import ENCODER_SHAPE, ModelConfig
from w2v_jax.errors import UserError
from w2v_jax.interop.huggingface_config import read_stated
from w2v_jax.interop.huggingface_folder import abstract, kind_of, read_model, weight_notes
from w2v_jax.interop.huggingface_names import PRE_TRAINING, encoder_from_state_dict
from w2v_jax.interop.huggingface_weights import read_arrays
from w2v_jax.interop.stated import Resolved, describe, table
from w2v_jax.model.wav2vec2 import Encoder
from w2v_jax.objective.pretraining import Parameters, bind

SCRATCH, HUGGING_FACE = "scratch", "hf:"
# Training settings that fine-tuning an encoder uses.
FINE_TUNING = ("dropout", "attention_dropout", "activation_dropout", "input_dropout", "layer_drop")
# Keys of encoder.json and init.json that run folders of older versions lack.
ADDED = ("recipe", "settings")
ENCODER_FILE = "encoder.json"


@dataclasses.dataclass(frozen=True)
class Source:
    """An encoder before fine-tuning.

    Attributes:
        config: its configuration.
        parameters: its arrays (NumPy); None for a fresh one.
        description: the content of the run's encoder.json; "recipe" is the preset whose fine-tuning recipe
            fits it.
        notes: lines for the user: where its settings come from, what is assumed or not used.
    """

    config: ModelConfig
    parameters: Parameters | None
    description: dict[str, Any]
    notes: tuple[str, ...] = ()


def load(init: str, model: str | None) -> Source:
    """Load the encoder that `--init` names.

    Args:
        init: scratch, a run folder of `w2v-jax pretrain` (RUN@ROUND or RUN@best for another checkpoint),
            `finetune` or `convert`, or hf:FOLDER.
        model: a preset; with anything but scratch it must be the checkpoint's architecture.

    Raises:
        UserError: no such thing, or a checkpoint of another architecture.
    """
    if init == SCRATCH:
        name = model or "tiny"
        return Source(model_config.PRESETS[name], None, {"init": SCRATCH, "model": name, "recipe": name})
    source = _from_folder(init) if init.startswith(HUGGING_FACE) else _from_run(init)
    if model is not None:
        check_shape(source.config, model_config.PRESETS[model], init, model)
    assert source.parameters is not None
    _check_arrays(source.parameters, source.config, init)
    recipe = model_config.nearest_preset(source.config)
    added = {"recipe": recipe, "parameters_sha256": fingerprint(source.parameters)}
    notes = source.notes
    if source.description["model"] not in model_config.PRESETS:
        notes = (f"fine-tuning recipe: {recipe}'s, by the shape of the encoder", *notes)
    return dataclasses.replace(source, description=source.description | added, notes=notes)


def _from_folder(init: str) -> Source:
    folder = Path(init.removeprefix(HUGGING_FACE))
    with blaming("--init"):
        stated = read_stated(folder)
        resolved, arrays = stated.resolve(), read_arrays(folder)
        parameters = encoder_from_state_dict(arrays, resolved.config)
        notes = (*describe(resolved, FINE_TUNING), *stated.notes, *weight_notes(folder, arrays))
    description = {"init": init, "model": "Hugging Face", "settings": table(resolved, FINE_TUNING)}
    return Source(resolved.config, parameters, description, notes)


def _from_run(init: str) -> Source:
    for kind, is_kind, open_kind in (
        ("recognizer", is_recognizer, open_recognizer),
        ("keyword spotter", is_keyword_spotter, open_keyword_spotter),
    ):
        # The best checkpoint is the one that is read anyway.
        folders = [Path(name) for name in (init, init.removesuffix(f"@{BEST}")) if is_kind(Path(name))]
        if not folders:
            continue
        opened = open_kind(folders[0], f"{OPTION}{init}")
        if opened.config.features != "encoder":
            raise UserError(f"{OPTION}{init} is a {kind} on {opened.config.features}, without an encoder")
        held, _ = jax.device_get(opened.best_checkpoint())
        return Source(opened.config.model, held["encoder"], {"init": init, "model": kind})
    run = open_run(init)
    make, _ = bind(lambda key: Encoder(run.config, key))
    parameters = run.parameters(jax.eval_shape(make, jax.random.key(0)))
    description = {
        "init": init,
        "model": run.settings["model"],
        "pretraining": {
            name: run.settings.get(name)
            for name in ("preset", "aggregation", "temperature", "rounds", "seed", "data", "crop_seconds")
        }
        | _algorithm(run.settings),
        "round": run.round_index,
    }
    if ORIGINS not in run.settings:
        return Source(run.config, parameters, description)
    resolved = Resolved(run.config, run.settings[ORIGINS], CONVERTED)
    description["settings"] = table(resolved, FINE_TUNING)
    return Source(run.config, parameters, description, tuple(describe(resolved, FINE_TUNING)))


def recipe_of(source: Source, folder: Path) -> str:
    """Name the preset whose fine-tuning recipe a run follows: the one of the encoder's shape, or the nearest.

    A run folder of an older version, which chose by the name of the model, goes on with its choice.

    Args:
        source: the encoder.
        folder: the run's, new or old.
    """
    held = read_json(folder / ENCODER_FILE) if (folder / ENCODER_FILE).is_file() else source.description
    if "recipe" in held:
        return source.description["recipe"]
    name = source.description["model"]
    return name if name in model_config.PRESETS else "base"


def pretraining_settings(init: str) -> tuple[Resolved, tuple[str, ...]]:
    """Find the configuration of a pre-training model; no array is read, and jax is not started.

    Returns:
        Its own settings, those that it does not state from the preset of its shape; and lines for the user.

    Raises:
        UserError: no such model, or one without the quantizer.
    """
    notes: tuple[str, ...] = ()
    if init.startswith(HUGGING_FACE):
        folder = Path(init.removeprefix(HUGGING_FACE))
        with blaming("--init"):
            stated, kind = read_stated(folder), kind_of(folder)
        notes = stated.notes
    else:
        folder, settings, config, _ = run_settings(init)
        stated, kind = stated_by(folder, settings, config), settings.get("kind", PRE_TRAINING)
    if kind != PRE_TRAINING:
        raise UserError(
            f"--init {init} is a {kind}, without the quantizer that pre-training needs: give a {PRE_TRAINING}"
        )
    return stated.resolve(), notes


def pretraining_choice(init: str, model: str | None, out: Path | None) -> tuple[str, ModelConfig]:
    """Choose the preset whose recipe a pre-training run follows, and its model's configuration.

    Args:
        init: the model that it begins from.
        model: the preset that the user names; it must have the model's shape.
        out: the run folder that the user names. A run that is there already keeps its choice.

    Raises:
        UserError: no such model, or one of another shape.
    """
    if out is not None and (out / "config.json").is_file():
        held = read_config(out)["settings"]
        if held.get("init") == init and "model_config" in held and model in (None, held["model"]):
            return held["model"], ModelConfig.from_dict(held["model_config"])
    resolved, _ = pretraining_settings(init)
    if model is not None:
        check_shape(resolved.config, model_config.PRESETS[model], init, model)
    return resolved.preset, resolved.config


def load_pretraining(init: str) -> Source:
    """Load a whole pre-training model, quantizer and projections too (NumPy).

    Raises:
        UserError: no such model, or its arrays do not fit.
    """
    resolved, notes = pretraining_settings(init)
    if init.startswith(HUGGING_FACE):
        model = read_model(Path(init.removeprefix(HUGGING_FACE)))
        parameters, notes = model.parameters, model.stated.notes
    else:
        parameters = open_run(init).parameters(abstract(resolved.config, PRE_TRAINING, {}))
    description = {
        "init": init,
        "parameters_sha256": fingerprint(parameters),
        "settings": table(resolved),
    }
    return Source(resolved.config, parameters, description, (*describe(resolved), *notes))


def check_shape(held: ModelConfig, wanted: ModelConfig, init: str, model: str) -> None:
    """Check that the fields that give parameters their shapes agree.

    Raises:
        UserError: they do not.
    """
    for name in ENCODER_SHAPE:
        here, there = getattr(wanted, name), getattr(held, name)
        if here != there:
            raise UserError(
                f"--init {init} is a checkpoint of another architecture than --model {model}: {name} is "
                f"{there} there and {here} here; leave --model out to take the checkpoint's"
            )


def _check_arrays(parameters: Parameters, config: ModelConfig, init: str) -> None:
    """Check that every array has the shape that the configuration gives it."""
    make, _ = bind(lambda key: Encoder(config, key))
    expected = dict(jax.tree_util.tree_leaves_with_path(jax.eval_shape(make, jax.random.key(0))))
    for path, value in jax.tree_util.tree_leaves_with_path(parameters):
        shape = expected[path].shape
        if value.shape != shape:
            raise UserError(
                f"--init {init} is a checkpoint of another architecture than its config.json: "
                f"{jax.tree_util.keystr(path)} has shape {value.shape}, expected {shape}"
            )


def fingerprint(parameters: Parameters) -> str:
    """Hash a model's arrays, so that a run that continues is known to have begun from the same ones."""
    digest = hashlib.sha256()
    for path, value in sorted(jax.tree_util.tree_leaves_with_path(parameters), key=lambda item: str(item[0])):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _algorithm(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Name a federated algorithm other than averages, which descriptions of older runs lack."""
    name = settings.get("algorithm", "fedavg")
    return {} if name == "fedavg" else {"algorithm": name}
