"""The arrays of a Hugging Face folder: from the files that transformers would read, and from no other."""

from pathlib import Path
from typing import Any

import numpy as np

from w2v_jax.errors import UserError
from w2v_jax.interop import torch_pickles
from w2v_jax.interop.foreign_files import named, read_settings, refuse_text

# In the order in which transformers looks for them: one file, or an index of several.
_NAMES = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


def weight_files(folder: Path) -> dict[str, set[str] | None]:
    """Name the files that hold a folder's arrays, each with the arrays to take from it (None: all).

    Raises:
        UserError: there are none, an index that is none, or only files that neither has a name for.
    """
    for single, index in _NAMES:
        if _there(folder / single):
            return {single: None}
        if _there(folder / index):
            return _of_index(folder / index)
    if others := _candidates(folder):
        raise UserError(
            f"{folder} holds {named(others)}, but neither model.safetensors nor an index of several files: "
            "give the model's file that name"
        )
    raise UserError(f"no model.safetensors and no pytorch_model.bin in {folder}: it holds no weights")


def _of_index(path: Path) -> dict[str, set[str] | None]:
    mapping = read_settings(path, "an index of weights").get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise UserError(f"{path} is not an index of weights: it has no weight_map")
    files: dict[str, set[str] | None] = {}
    for name, file in mapping.items():
        if type(file) is not str or Path(file).name != file:
            raise UserError(f"{path} names {file!r}, which is no file of its folder")
        if not _there(path.parent / file):
            raise UserError(f"{path} names {file}, which is not there: download the model again")
        wanted = files.setdefault(file, set())
        assert wanted is not None
        wanted.add(name)
    return files


def _there(path: Path) -> bool:
    return path.is_file() or path.is_symlink()


def _candidates(folder: Path) -> list[str]:
    return sorted(
        path.name for pattern in ("*.safetensors", "pytorch_model*.bin") for path in folder.glob(pattern)
    )


def strays(folder: Path) -> list[str]:
    """Name the files of weights in a folder that are not read.

    Raises:
        UserError: see `weight_files`.
    """
    return [name for name in _candidates(folder) if name not in weight_files(folder)]


def array_names(folder: Path) -> set[str]:
    """Names of a folder's arrays; of safetensors, no array is read.

    Raises:
        UserError: see `read_arrays`.
    """
    names: set[str] = set()
    for file, wanted in weight_files(folder).items():
        names |= wanted if wanted is not None else _names_in(folder / file)
    return names


def _names_in(path: Path) -> set[str]:
    from safetensors import SafetensorError, safe_open

    refuse_text(path)
    if path.suffix == ".bin":
        return set(_pickled(path))
    try:
        with safe_open(path, framework="numpy") as held:
            return set(held.keys())
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {path} ({error})") from error


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of a folder, in fp32.

    Raises:
        UserError: there are none, they cannot be read, are no real numbers, or a *.bin names code.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    state: dict[str, Any] = {}
    for file, wanted in weight_files(folder).items():
        path = folder / file
        refuse_text(path)
        try:
            held = _pickled(path) if path.suffix == ".bin" else load_file(path)
        except (SafetensorError, OSError, TypeError) as error:
            raise UserError(f"cannot read {path} ({error})") from error
        if wanted is not None and (lacking := sorted(wanted - held.keys())):
            raise UserError(f"{path} lacks arrays that the index names: {named(lacking)}")
        state |= {name: array for name, array in held.items() if wanted is None or name in wanted}
    if whole := [f"{name} ({array.dtype})" for name, array in state.items() if array.dtype.kind in "biuc"]:
        raise UserError(f"{folder} holds arrays that are no weights in floating point: {named(whole)}")
    return {name: np.asarray(value, np.float32) for name, value in state.items()}


def _pickled(path: Path) -> dict[str, Any]:
    held = torch_pickles.read(path)
    if not isinstance(held, dict) or not all(
        type(name) is str and type(value) is np.ndarray for name, value in held.items()
    ):
        raise UserError(f"{path} holds something else than named arrays")
    return held
