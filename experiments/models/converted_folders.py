"""Folders that `w2v-jax convert` writes of fine-tuned models, and what they keep of their source."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.models import encoders
from experiments.models.pretraining_runs import CONVERTED, ORIGINS
from experiments.models.recognizers import BEST
from experiments.process.files import read_json, write_json
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.errors import UserError
from w2v_jax.interop import huggingface_folder
from w2v_jax.interop.huggingface_config import read_extractor
from w2v_jax.interop.huggingface_names import Parameters, WeightNorm
from w2v_jax.interop.stated import describe
from w2v_jax.recognition.frames import FramesConfig

KEPT = "huggingface.json"  # config.json of the folder that a run came from
KEPT_PROCESSING = "huggingface_processing.json"  # its feature extractor's and its tokenizer's settings


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Save a state (NumPy) as checkpoint 0."""
    checkpoints = Checkpoints(folder)
    checkpoints.save(0, jax.tree.map(np.ascontiguousarray, state))
    checkpoints.close()


def kept_settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what a converted run keeps of its source: config.json, and the settings of its processors."""
    config, processing = (
        read_json(folder / name) if (folder / name).is_file() else {} for name in (KEPT, KEPT_PROCESSING)
    )
    return config, processing


def write_finetuned(
    out: Path,
    model: huggingface_folder.HuggingFaceModel,
    parameters: Parameters,
    statistics: Parameters,
    processing: dict[str, Any],
    source: Path,
    provenance: dict[str, Any],
) -> list[str]:
    """Write what the folders of both tasks have in common; return lines for the user.

    Args:
        out: folder to write.
        model: the model of Hugging Face.
        parameters, statistics: ours.
        processing: settings of its processors to keep, beside those of its feature extractor.
        source: its folder.
        provenance: the provenance of this command.
    """
    out.mkdir(parents=True, exist_ok=True)
    save_checkpoint(out / BEST, {"parameters": parameters, "statistics": statistics})
    write_json(out / KEPT, model.settings)
    write_json(out / KEPT_PROCESSING, {"feature_extractor": read_extractor(source)[0], **processing})
    resolved = model.stated.resolve()
    settings = {
        "init": f"{encoders.HUGGING_FACE}{source}",
        "preset": CONVERTED,
        ORIGINS: resolved.origins,
    }
    write_json(out / "config.json", {"settings": settings, "provenance": provenance})
    return describe(resolved, encoders.FINE_TUNING)


def check_exported(source: Path, kind: str, kinds: tuple[str, ...], what: str, features: str) -> None:
    """Check that a fine-tuned run has the heads of a class.

    Raises:
        UserError: it has other heads, or no encoder.
    """
    if kind not in kinds or features != "encoder":
        raise UserError(f"--kind {kind}: {source} is a {what} on {features}, and has no such heads")


def write_exported(
    out: Path,
    kind: str,
    config: FramesConfig,
    parameters: Parameters,
    told: dict[str, Any],
    processing: dict[str, Any],
    weight_norm: WeightNorm,
) -> list[str]:
    """Write a fine-tuned run's folder for Hugging Face; return notes for the user."""
    model, extractor = config.model, processing.get("feature_extractor")
    huggingface_folder.write_model(
        out, kind, model, parameters, kept=told, extractor=extractor, weight_norm=weight_norm
    )
    if model.feature_norm != "group":
        return []
    return [
        f"{out}: transformers normalises over padding too, which this project's recognizers do not: give "
        "it clips one by one, or of one length"
    ]
