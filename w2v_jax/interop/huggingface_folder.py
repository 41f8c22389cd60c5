"""Models of Hugging Face folders: config.json, weights, and the files that transformers' processors need.

Pickled arrays (*.bin) are read without running what they name (`torch_pickles`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from w2v_jax.config import MOST, ModelConfig
from w2v_jax.errors import UserError
from w2v_jax.interop import huggingface_classes, huggingface_names
from w2v_jax.interop.foreign_files import named
from w2v_jax.interop.huggingface_config import (
    CONFIG_FILE,
    EXTRACTOR_FILE,
    extractor_settings_of,
    model_settings_of,
    read_model_settings,
    read_stated,
)
from w2v_jax.interop.huggingface_names import (
    CLASSIFIER,
    CTC,
    ENCODER,
    HEAD,
    LAYER_WEIGHTS,
    PRE_TRAINING,
    SCORES,
    Parameters,
    WeightNorm,
)
from w2v_jax.interop.huggingface_vocabulary import VOCABULARY_FILE
from w2v_jax.interop.huggingface_weights import array_names, read_arrays, strays
from w2v_jax.interop.stated import Stated
from w2v_jax.model.best_rq import BestRQ
from w2v_jax.model.binding import bind
from w2v_jax.model.wav2vec2 import Encoder, Wav2Vec2


class HuggingFaceModel(NamedTuple):
    """A model of a Hugging Face folder.

    Attributes:
        kind: its class there.
        config: ours, as `read_config` gives it.
        parameters: ours (NumPy, fp32), as `huggingface_names.from_state_dict` gives them.
        settings: its config.json as it is.
        stated: what the folder states; `stated.notes` also say what was left aside or assumed.
    """

    kind: str
    config: ModelConfig
    parameters: Parameters
    settings: dict[str, Any]
    stated: Stated


def read_config(folder: Path) -> ModelConfig:
    """Read the model configuration of a Hugging Face folder.

    Training settings that config.json leaves out are those of the preset of the same shape, or the nearest;
    `huggingface_config.read_stated` tells which they are.

    Raises:
        UserError: no config.json, or one of another architecture.
    """
    return read_stated(folder).resolve().config


def read_encoder(folder: Path) -> tuple[ModelConfig, Parameters]:
    """Read configuration and encoder parameters (NumPy, fp32) of a Hugging Face folder.

    Raises:
        UserError: no weights, weights of another architecture, or of other shapes.
    """
    config = read_config(folder)
    return config, huggingface_names.encoder_from_state_dict(read_arrays(folder), config)


def read_model(folder: Path) -> HuggingFaceModel:
    """Read a whole model of a Hugging Face folder, of the class that `kind_of` finds.

    Raises:
        UserError: no weights, another class, or missing, extra or misshapen arrays, listed by name.
    """
    stated, settings = read_stated(folder), read_model_settings(folder)
    config, (kind, notes) = stated.resolve().config, _kind(folder)
    arrays = read_arrays(folder)
    arrays, aside = huggingface_names.of_class(arrays, kind)
    if kind == CTC:
        _check_tokens(folder / CONFIG_FILE, settings, arrays)
    elif kind == CLASSIFIER:
        shape = huggingface_classes.read_shape(folder / CONFIG_FILE, settings, arrays)
        settings |= huggingface_classes.classifier_settings(*shape)
        if not shape.weighted_layers and arrays.pop(LAYER_WEIGHTS, None) is not None:
            aside.append(LAYER_WEIGHTS)
    shapes = huggingface_names.shapes_of(abstract(config, kind, settings), config, kind)
    parameters = huggingface_names.from_state_dict(arrays, config, kind, shapes)
    notes = [*notes, *weight_notes(folder, arrays)]
    if aside:
        notes.append(f"{folder}: left aside, for {kind} has no such arrays: {named(aside)}")
    stated = Stated(stated.values, stated.origins, (*stated.notes, *notes))
    return HuggingFaceModel(kind, config, parameters, settings, stated)


def _check_tokens(path: Path, settings: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Take a CTC model's number of tokens from its arrays if config.json does not state it.

    Raises:
        UserError: config.json states something that is no count.
    """
    if (stated := settings.get("vocab_size")) is None:
        stated = len(arrays[SCORES]) if SCORES in arrays else 32
        settings["vocab_size"] = stated
    if type(stated) is not int or not 1 <= stated <= MOST:
        raise UserError(f"{path} has vocab_size {stated!r}: it must be a whole number from 1 to {MOST}")


def weight_notes(folder: Path, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Notes on a folder's weights: files that are not read, a mask embedding that is not there."""
    notes = []
    if others := strays(folder):
        notes.append(f"{folder}: not read, as transformers does not: {named(others)}")
    if not any(name.endswith(huggingface_names.MASK_EMBEDDING) for name in arrays):
        notes.append(f"{folder} has no {huggingface_names.MASK_EMBEDDING}: the mask embedding is zero")
    return notes


def kind_of(folder: Path) -> str:
    """Find the class of a folder's model.

    config.json names it. If it names none, or `Wav2Vec2Model` over arrays with heads, the arrays tell.

    Raises:
        UserError: a class that is not known here.
    """
    return _kind(folder)[0]


def _kind(folder: Path) -> tuple[str, list[str]]:
    path = folder / CONFIG_FILE
    given = read_model_settings(folder).get("architectures") or []
    if not isinstance(given, list | str):
        raise UserError(f"{path} has architectures {given!r}: it must be a list of names")
    kinds = [kind for kind in huggingface_names.KINDS if kind in given]
    if given and not kinds:
        raise UserError(
            f"{path} names the architectures {given}: expected one of {', '.join(huggingface_names.KINDS)}"
        )
    if kinds and kinds[0] != ENCODER:
        return kinds[0], []
    names = array_names(folder)
    found = ENCODER
    if "quantizer.codevectors" in names:
        found = PRE_TRAINING
    elif SCORES in names and (folder / VOCABULARY_FILE).is_file():
        found = CTC
    elif {huggingface_classes.SCORES, huggingface_classes.PROJECTOR} <= names:
        found = CLASSIFIER
    if kinds == [found]:
        return found, []
    return found, [f"{path} names the architectures {given or 'none'}: the arrays are those of {found}"]


def abstract(config: ModelConfig, kind: str, settings: Mapping[str, Any]) -> Parameters:
    """Give the shapes of the parameters of a class.

    Args:
        config: ours.
        kind: the class.
        settings: config.json, which tells a CTC model's number of tokens and a classifier's head.
    """
    pre_training = BestRQ if config.objective == "best-rq" else Wav2Vec2
    module = pre_training if kind == PRE_TRAINING else Encoder
    make, _ = bind(lambda key: module(config, key))
    shapes = dict(jax.eval_shape(make, jax.random.key(0)))
    if kind == CTC:
        tokens = int(settings.get("vocab_size", 32))
        shapes[HEAD] = _linear_shapes(config.hidden_dim, tokens)
    elif kind == CLASSIFIER:
        head = huggingface_classes.read_shape(Path(CONFIG_FILE), settings)
        shapes[HEAD] = {
            "projector": _linear_shapes(config.hidden_dim, head.projection_dim),
            "classifier": _linear_shapes(head.projection_dim, len(head.classes)),
        }
        if head.weighted_layers:
            weights = jax.ShapeDtypeStruct((config.num_layers + 1,), np.float32)
            shapes[HEAD][LAYER_WEIGHTS] = weights
    return shapes


def check_writable(config: ModelConfig) -> None:
    """Refuse a model whose front end is none of wav2vec 2.0's.

    Raises:
        UserError: it hears log-mel spectra.
    """
    if config.front_end == "log-mel":
        raise UserError(
            f"a model of {config.objective} on log-mel spectra cannot be written for Hugging Face, whose "
            "wav2vec 2.0 begins with convolutions over the waveform: finetune opens the run folder itself"
        )


def _linear_shapes(in_dim: int, out_dim: int) -> Parameters:
    return {
        "kernel": jax.ShapeDtypeStruct((in_dim, out_dim), np.float32),
        "bias": jax.ShapeDtypeStruct((out_dim,), np.float32),
    }


def write_model(
    folder: Path,
    kind: str,
    config: ModelConfig,
    parameters: Parameters,
    *,
    kept: Mapping[str, Any] | None = None,
    extractor: Mapping[str, Any] | None = None,
    weight_norm: WeightNorm = "parametrizations",
) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json.

    Args:
        folder: made if need be.
        kind, config, parameters: as `read_model` gives them.
        kept: config.json of the folder that the model came from.
        extractor: its feature extractor's settings.
        weight_norm: see `huggingface_names.to_state_dict`.

    Raises:
        UserError: Hugging Face has no such model; nothing is written then.
    """
    check_writable(config)
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = huggingface_names.to_state_dict(parameters, config, kind, weight_norm)
    settings = model_settings_of(config, kind, kept)
    if not _masks(settings):
        state = {
            name: value
            for name, value in state.items()
            if not name.endswith(huggingface_names.MASK_EMBEDDING) or value.any()
        }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / CONFIG_FILE, settings)
    _write(folder / EXTRACTOR_FILE, extractor_settings_of(config, extractor))


def _masks(settings: Mapping[str, Any]) -> bool:
    """Tell whether transformers gives a model a mask embedding."""
    return settings.get("mask_time_prob", 0.05) > 0 or (settings.get("mask_feature_prob") or 0.0) > 0


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
