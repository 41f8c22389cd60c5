"""Arrays of a torch file (*.bin, *.pt) without torch, and without running anything that it names.

Such a file is a zip archive of raw arrays and a pickle that says what they are. A pickle is a program: it
can name any function of any module and have it called. Here the few names that arrays need are known, and
stand for functions of this file; settings that fairseq keeps beside them become inert records; any other name
is refused before anything is made of it.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from w2v_jax.errors import UserError

_STORAGES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Classes of settings, by the module that they are in: their fields are read, their code is not there.
_RECORDS = ("argparse", "omegaconf", "fairseq")
_DAMAGE = (
    pickle.UnpicklingError, EOFError, KeyError, IndexError, AttributeError, TypeError, ValueError,
)  # fmt: skip


class Record:
    """Settings of a class that is not here: what the file says of them, as attributes of `fields`."""

    given: tuple[Any, ...]
    fields: dict[str, Any]

    def __new__(cls, *given: Any, **named: Any):
        """Pickles make objects without `__init__`."""
        made = super().__new__(cls)
        made.given, made.fields = given, dict(named)
        return made

    def __init__(self, *given: Any, **named: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.fields |= part

    def __setitem__(self, name: Any, value: Any) -> None:
        self.fields[name] = value


def read(path: Path) -> Any:
    """What a torch file holds, its tensors as NumPy arrays.

    Raises:
        UserError: it is no such file, it is of the old format that is no archive, or it names something that
            no array needs. Nothing of it has been run then.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise UserError(f"{path} is a zip archive, but not one that torch wrote: it has no data.pkl")
            root = pickles[0].removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in archive.namelist() and archive.read(order).strip() != b"little":
                raise UserError(f"{path} is of a big-endian machine: save it again on another one")
            return _Reader(path, archive, root).load()
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is not a file that torch wrote since version 1.6: convert it there with torch.save"
        ) from error
    except _DAMAGE as error:
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is damaged: {words}") from error


class _Reader(pickle.Unpickler):
    """An unpickler that knows the names in `find_class` and no others."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, root: str):
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._path, self._archive, self._root = path, archive, root
        self._arrays: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name that the pickle uses."""
        if module == "torch" and name in _STORAGES:
            return _Storage(name)
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
        }
        if (module, name) in known:
            return known[module, name]
        if module.split(".")[0] in _RECORDS:
            return type(name, (Record,), {})
        raise UserError(
            f"{self._path} is refused: its pickle names {module}.{name}, which no array needs and which may "
            "run code; nothing of it was run. Ask for safetensors"
        )

    def persistent_load(self, pid: Any) -> np.ndarray:
        """An array of the archive, by ("storage", type, key, device, elements)."""
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _Storage):
            raise ValueError(f"it keeps {kind!r} where arrays are kept")
        if key not in self._arrays:
            held = np.frombuffer(self._archive.read(f"{self._root}data/{key}"), storage.dtype)
            if held.size < count:
                raise ValueError(f"array {key} has {held.size} elements, {count} are announced")
            self._arrays[key] = held
        return self._arrays[key]


class _Storage:
    """The type of an array's elements."""

    def __init__(self, name: str):
        self.dtype = np.dtype(_STORAGES[name])


def _tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None) -> np.ndarray:
    del requires_grad, hooks, metadata
    shape, strides = tuple(shape), tuple(strides)
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if math.prod(shape) else 0
    if offset < 0 or min((*strides, 0)) < 0 or last >= max(storage.size, 1):
        raise ValueError("an array reaches beyond what is stored of it")
    width = storage.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(storage[offset:], shape, [s * width for s in strides])
    return np.ascontiguousarray(view).reshape(shape)


def _parameter(data, requires_grad=False, hooks=None) -> np.ndarray:
    del requires_grad, hooks
    return data
