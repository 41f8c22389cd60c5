"""Small checkpoints of other projects for tests: arrays without any compilation, folders as transformers
has them."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from w2v_jax.config import ModelConfig
from w2v_jax.interop import huggingface_names
from w2v_jax.interop.huggingface_config import extractor_settings_of, model_settings_of
from w2v_jax.interop.huggingface_folder import abstract
from w2v_jax.interop.huggingface_names import CTC

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:8a676e68\nsize 378351368\n"
TOKENS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6, "'": 7}


@functools.cache
def parameters_of(config: ModelConfig, kind: str, tokens: int = len(TOKENS)) -> Any:
    """Random parameters of a class."""
    rng = np.random.default_rng(0)
    shapes = abstract(config, kind, {"vocab_size": tokens})
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes)


def state_of(config: ModelConfig, kind: str, tokens: int = len(TOKENS)) -> dict[str, np.ndarray]:
    """Its arrays by transformers' names."""
    return huggingface_names.to_state_dict(parameters_of(config, kind, tokens), config, kind)


def write_folder(folder: Path, config: ModelConfig, kind: str, **changes: Any) -> Path:
    """Write a folder; `changes` go into config.json, None takes a field out."""
    folder.mkdir(parents=True)
    settings = model_settings_of(config, kind)
    if kind == CTC:
        (folder / "vocab.json").write_text(json.dumps(TOKENS))
        settings |= {"vocab_size": len(TOKENS), "pad_token_id": 1}
    settings |= changes
    kept = {name: value for name, value in settings.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    write_json(folder / "preprocessor_config.json", extractor_settings_of(config))
    save_file(state_of(config, kind), folder / "model.safetensors")
    return folder


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value))
