"""Convert keyword runs to Wav2Vec2ForSequenceClassification of Hugging Face, and back."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.models.converted_folders import (
    check_exported,
    kept_settings,
    write_exported,
    write_finetuned,
)
from experiments.models.keyword_spotters import SETTINGS, KeywordFolder, open_keyword_spotter
from experiments.process.files import write_json
from w2v_jax.errors import UserError
from w2v_jax.interop.huggingface_classes import classifier_settings, read_shape
from w2v_jax.interop.huggingface_folder import CONFIG_FILE, HuggingFaceModel
from w2v_jax.interop.huggingface_names import CLASSIFIER, ENCODER, HEAD, LAYER_WEIGHTS, Parameters, WeightNorm
from w2v_jax.recognition.keywords import KeywordHeadConfig, KeywordSpotterConfig

# Parts of the head: their names here and in transformers.
PARTS = {"projection": "projector", "output": "classifier"}


def from_hugging_face(model: HuggingFaceModel) -> tuple[KeywordSpotterConfig, list[str], Parameters]:
    """Make (configuration, classes, parameters) of a keyword spotter from a classifier of transformers."""
    shape = read_shape(CONFIG_FILE, model.settings)
    config = KeywordSpotterConfig(
        model=model.config.replace(masked_group_norm=True),
        head=KeywordHeadConfig(
            num_classes=len(shape.classes),
            projection=shape.projection_dim,
            weighted_layers=shape.weighted_layers,
        ),
    )
    encoder = dict(model.parameters)
    held = encoder.pop(HEAD)
    head = {ours: held[theirs] for ours, theirs in PARTS.items()}
    if shape.weighted_layers:
        head[LAYER_WEIGHTS] = held[LAYER_WEIGHTS]
    return config, list(shape.classes), {"encoder": encoder, "head": head}


def to_hugging_face(opened: KeywordFolder, head: Parameters) -> tuple[Parameters, dict[str, Any]]:
    """Make a classifier's head for transformers, and its settings in config.json.

    Args:
        opened: the keyword run.
        head: parameters of its head (NumPy).

    Raises:
        UserError: the class of transformers has no such head.
    """
    config = opened.config.head
    wrong = [f"{config.num_blocks} blocks (--head-blocks)"] * bool(config.num_blocks)
    wrong += [f"{config.segments} parts (--segments)"] * (config.segments > 1)
    wrong += [f"{config.pooling} pooling (--pooling)"] * (config.pooling != "mean")
    if wrong:
        raise UserError(
            f"{opened.named} has a head of {', '.join(wrong)}, Wav2Vec2ForSequenceClassification takes the "
            "mean of all frames: fine-tune without, or give --kind Wav2Vec2Model for the encoder alone"
        )
    dim = opened.config.feature_dim
    same = {"kernel": np.eye(dim, dtype=np.float32), "bias": np.zeros(dim, np.float32)}
    held = {theirs: dict(head.get(ours, same)) for ours, theirs in PARTS.items()}
    if config.weighted_layers:
        held[LAYER_WEIGHTS] = head[LAYER_WEIGHTS]
    settings = classifier_settings(opened.classes, config.projection or dim, config.weighted_layers)
    return held, settings


def write_keyword_spotter(
    out: Path, model: HuggingFaceModel, source: Path, provenance: dict[str, Any]
) -> list[str]:
    """Write a keyword run's folder, which transcribe opens; return lines for the user."""
    config, classes, parameters = from_hugging_face(model)
    lines = write_finetuned(out, model, parameters, {}, {}, source, provenance)
    write_json(out / SETTINGS, {**dataclasses.asdict(config), "classes": classes})
    return lines


def export_keyword_spotter(
    source: Path, out: Path, kind: str | None, weight_norm: WeightNorm
) -> tuple[str, Parameters, list[str]]:
    """Write a keyword run for Hugging Face.

    Args:
        source: the run's folder.
        out: folder to write.
        kind: class to write; None for that of keyword runs.
        weight_norm: see `huggingface_names.to_state_dict`.

    Returns:
        The class, its parameters, and notes for the user.

    Raises:
        UserError: the class has no such head.
    """
    opened = open_keyword_spotter(source)
    kind = kind or CLASSIFIER
    check_exported(source, kind, (CLASSIFIER, ENCODER), "keyword spotter", opened.config.features)
    held = jax.device_get(opened.best_checkpoint()[0])
    parameters = dict(held["encoder"])
    told, processing = kept_settings(source)
    if kind == CLASSIFIER:
        parameters[HEAD], settings = to_hugging_face(opened, held["head"])
        told |= settings
    notes = write_exported(out, kind, opened.config, parameters, told, processing, weight_norm)
    return kind, parameters, notes
