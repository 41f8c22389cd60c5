"""The work of `w2v-jax convert`: which way to convert, and the files of the folder that it writes."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.models import keyword_conversion
from experiments.models.converted_folders import (
    KEPT,
    KEPT_PROCESSING,
    check_exported,
    kept_settings,
    save_checkpoint,
    write_exported,
    write_finetuned,
)
from experiments.models.keyword_spotters import is_keyword_spotter
from experiments.models.pretraining_runs import CONVERTED, ORIGINS, open_run
from experiments.models.recognizers import SETTINGS, is_recognizer, open_recognizer
from experiments.options.arguments import blaming
from experiments.process.files import write_json
from w2v_jax.errors import UserError
from w2v_jax.interop import fairseq, huggingface_folder, huggingface_vocabulary
from w2v_jax.interop.foreign_files import read_optional, refuse_outer_folder
from w2v_jax.interop.huggingface_config import read_extractor
from w2v_jax.interop.huggingface_names import (
    CLASSIFIER,
    CTC,
    ENCODER,
    HEAD,
    PRE_TRAINING,
    Parameters,
    WeightNorm,
)
from w2v_jax.interop.stated import Stated, describe
from w2v_jax.recognition.ctc import RecognizerConfig
from w2v_jax.recognition.heads import EPSILON, HeadConfig
from w2v_jax.text.rules import TextRules
from w2v_jax.text.storage import save_tokenizer

# Running statistics that normalise nothing: mean 0, and a variance that epsilon makes one.
NEUTRAL_VARIANCE = np.float32(1.0) - np.float32(EPSILON)


def convert(
    source: Path, out: Path, kind: str | None, weight_norm: WeightNorm, provenance: dict[str, Any]
) -> list[str]:
    """Convert a model, whichever way it goes; return lines for the user: what was done, assumed or left
    aside.

    Args:
        source: see `w2v-jax convert`.
        out: folder to write.
        kind: class of Hugging Face to write; None for what the source is.
        weight_norm: see `huggingface_names.to_state_dict`.
        provenance: the provenance of this command.

    Raises:
        UserError: it is no model that can be converted so; nothing is written then.
    """
    folder, _, _ = str(source).rpartition("@")
    if not source.exists() and not (folder and Path(folder).is_dir()):
        raise UserError(
            f"SOURCE: no such file or folder: {source} (expected a Hugging Face folder, a .pt or a run)"
        )
    if source.is_file():
        _refuse(kind, f"{source} is converted to a run folder")
        stated, parameters = fairseq.read_model(source)
        _write_run(out, PRE_TRAINING, stated, parameters, {}, source, provenance)
        told = _said(source, "fairseq", PRE_TRAINING, parameters, out, "run folder")
        return [told, *describe(stated.resolve()), *stated.notes]
    if "model_type" in _settings(source):
        _refuse(kind, f"{source} is converted to a run folder")
        model = huggingface_folder.read_model(source)
        if model.kind == CTC:
            lines = _write_recognizer(out, model, source, provenance)
        elif model.kind == CLASSIFIER:
            lines = keyword_conversion.write_keyword_spotter(out, model, source, provenance)
        else:
            _write_run(out, model.kind, model.stated, model.parameters, model.settings, source, provenance)
            lines = describe(model.stated.resolve())
        told = _said(source, "Hugging Face", model.kind, model.parameters, out, "run folder")
        return [told, *lines, *model.stated.notes]
    if is_recognizer(source):
        written, parameters, notes = _export_recognizer(source, out, kind, weight_norm)
    elif is_keyword_spotter(source):
        written, parameters, notes = keyword_conversion.export_keyword_spotter(source, out, kind, weight_norm)
    else:
        written, parameters = _export_run(source, out, kind, weight_norm)
        notes = []
    return [_said(source, "run folder", written, parameters, out, "Hugging Face"), *notes]


def _settings(folder: Path) -> dict[str, Any]:
    refuse_outer_folder(folder)
    return read_optional(folder / "config.json", "a config.json of a model")


def _refuse(kind: str | None, why: str) -> None:
    if kind is not None:
        raise UserError(f"--kind is for what is written for Hugging Face; {why}")


def _said(source: Path, before: str, kind: str, parameters: Parameters, out: Path, after: str) -> str:
    count = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    return f"{source} ({before}) -> {out} ({after}): {kind}, {count:,} parameters"


def _write_run(
    out: Path,
    kind: str,
    stated: Stated,
    parameters: Parameters,
    kept: dict[str, Any],
    source: Path,
    provenance: dict[str, Any],
) -> None:
    """Write a run folder that pretrain and finetune begin from."""
    resolved = stated.resolve()
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "preset": CONVERTED,
        "model": CONVERTED,
        "kind": kind,
        "source": str(source),
        "model_config": dataclasses.asdict(resolved.config),
        ORIGINS: resolved.origins,
    }
    save_checkpoint(out / "checkpoints", {"parameters": parameters})
    write_json(out / KEPT, kept)
    if kept:
        write_json(out / KEPT_PROCESSING, {"feature_extractor": read_extractor(source)[0]})
    write_json(out / "config.json", {"settings": settings, "provenance": provenance})


def _write_recognizer(
    out: Path, model: huggingface_folder.HuggingFaceModel, source: Path, provenance: dict[str, Any]
) -> list[str]:
    """Write a run folder that transcribe opens: the head is the scores alone, its norm does nothing.

    Returns lines for the user.
    """
    held, encoder = dict(model.parameters[HEAD]), dict(model.parameters)
    del encoder[HEAD]
    num_tokens = held["bias"].shape[0]
    vocabulary = huggingface_vocabulary.read_vocabulary(source, model.settings, num_tokens)
    tokenizer = vocabulary.tokenizer
    output = {"kernel": held["kernel"][:, tokenizer.ids], "bias": held["bias"][tokenizer.ids]}
    width = model.config.hidden_dim
    norm = {"scale": np.ones(width, np.float32), "bias": np.zeros(width, np.float32)}
    config = RecognizerConfig(
        model=model.config.replace(masked_group_norm=True),
        head=HeadConfig(num_tokens=num_tokens, num_blocks=0),
    )
    statistics = {
        "input_norm": {"mean": np.zeros(width, np.float32), "variance": np.full(width, NEUTRAL_VARIANCE)}
    }
    parameters = {"encoder": encoder, "head": {"input_norm": norm, "output": output}}
    processing = {"tokenizer": vocabulary.settings}
    lines = write_finetuned(out, model, parameters, statistics, processing, source, provenance)
    save_tokenizer(out, tokenizer, TextRules())
    write_json(out / SETTINGS, dataclasses.asdict(config))
    return [*lines, *vocabulary.notes]


def _export_run(source: Path, out: Path, kind: str | None, weight_norm: WeightNorm) -> tuple[str, Parameters]:
    """Write a pre-training run for Hugging Face."""
    run = open_run(str(source), "")
    with blaming(str(source)):
        huggingface_folder.check_writable(run.config)
    held = run.settings.get("kind", PRE_TRAINING)
    written = kind or held
    if written in (CTC, CLASSIFIER) or (written == PRE_TRAINING and held == ENCODER):
        raise UserError(f"--kind {written}: {source} is a {held}, and has no such heads")
    parameters = run.parameters(huggingface_folder.abstract(run.config, written, {}))
    kept, processing = kept_settings(run.folder)
    huggingface_folder.write_model(
        out,
        written,
        run.config,
        parameters,
        kept=kept,
        extractor=processing.get("feature_extractor"),
        weight_norm=weight_norm,
    )
    return written, parameters


def _export_recognizer(
    source: Path, out: Path, kind: str | None, weight_norm: WeightNorm
) -> tuple[str, Parameters, list[str]]:
    """Write a fine-tuned run for Hugging Face; the norm before its scores becomes part of them."""
    opened = open_recognizer(source)
    config = opened.config
    kind = kind or CTC
    if config.features == "encoder":
        with blaming(str(source)):
            huggingface_folder.check_writable(config.model)
    check_exported(source, kind, (CTC, ENCODER), "recognizer", config.features)
    if kind == CTC and config.head.num_blocks:
        raise UserError(
            f"{source} has a head of {config.head.num_blocks} blocks, Wav2Vec2ForCTC has none: fine-tune "
            "with --head-blocks 0, or give --kind Wav2Vec2Model for the encoder alone"
        )
    held, statistics = jax.device_get(opened.best_checkpoint())
    parameters = dict(held["encoder"])
    told, processing = kept_settings(source)
    if kind == CTC:
        told |= huggingface_vocabulary.write_vocabulary(out, opened.tokenizer, processing.get("tokenizer"))
        head = _folded(held["head"], statistics["input_norm"])
        there = np.argsort(getattr(opened.tokenizer, "ids", range(opened.tokenizer.num_tokens)))
        parameters[HEAD] = {"kernel": head["kernel"][:, there], "bias": head["bias"][there]}
    return kind, parameters, write_exported(out, kind, config, parameters, told, processing, weight_norm)


def _folded(head: Parameters, statistics: Parameters) -> Parameters:
    """Fold a norm over frames into the scores that follow it."""
    norm, output = head["input_norm"], head["output"]
    if (
        (statistics["mean"] == 0).all()
        and (statistics["variance"] == NEUTRAL_VARIANCE).all()
        and (norm["scale"] == 1).all()
        and (norm["bias"] == 0).all()
    ):
        return output  # the norm does nothing, and so nothing is rounded
    scale = norm["scale"].astype(np.float64) / np.sqrt(statistics["variance"].astype(np.float64) + EPSILON)
    shift = norm["bias"] - statistics["mean"] * scale
    kernel = output["kernel"].astype(np.float64)
    return {
        "kernel": (scale[:, None] * kernel).astype(np.float32),
        "bias": (output["bias"] + shift @ kernel).astype(np.float32),
    }
