"""Read the arrays of a torch file (*.bin, *.pt) without torch, and without running anything that it names.

Such a file is a zip archive of raw arrays and of a pickle that describes them (`inert_pickles`).
"""

import math
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from w2v_jax.errors import UserError
from w2v_jax.interop.foreign_files import refuse_text
from w2v_jax.interop.inert_pickles import Record, RefusedError, TensorSpec, loads

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
_DAMAGE = (
    pickle.UnpicklingError, EOFError, KeyError, IndexError, AttributeError, TypeError, ValueError,
    RuntimeError, OverflowError, MemoryError, zlib.error, struct.error,
)  # fmt: skip
# Limit of the bytes of all arrays over the bytes of the file: a few arrays share their storage (tied
# weights).
MOST_SHARED = 4


def read(path: Path) -> Any:
    """Read a torch file; its tensors become NumPy arrays.

    Raises:
        UserError: it is no such file (a web page, a text), it has the old format, which is no archive, or it
            names something that no array needs. Nothing of it has been run then.
    """
    refuse_text(path)
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise UserError(f"{path} is a zip archive, but not one that torch wrote: it has no data.pkl")
            root = pickles[0].removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in archive.namelist() and _bytes(archive, order).strip() != b"little":
                raise UserError(f"{path} is of a big-endian machine: save it again on another one")
            held = loads(_bytes(archive, pickles[0]), tuple(_STORAGES))
            return _with_arrays(held, archive, root, path.stat().st_size)
    except RefusedError as refused:
        raise UserError(
            f"{path} is refused: its pickle names {refused}, which no array needs and which may run code; "
            "nothing of it was run. Ask for safetensors"
        ) from None
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is not a file that torch wrote since version 1.6: convert it there with torch.save"
        ) from error
    except _DAMAGE as error:
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is damaged: {words}") from error


def _bytes(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a file of the archive. Compressed ones are refused: torch writes none, and they may be of any
    size."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, as torch does not")
    return archive.read(name)


def _with_arrays(held: Any, archive: zipfile.ZipFile, root: str, file_bytes: int) -> Any:
    """Replace descriptions of arrays by the arrays, in dicts, lists and records of any depth."""
    arrays, left = _Arrays(archive, root, MOST_SHARED * file_bytes), [held]
    seen = {id(held)}

    def passed(value: Any) -> Any:
        if type(value) is TensorSpec:
            return arrays.of(value)
        if type(value) in (dict, list, tuple, Record) and id(value) not in seen:
            seen.add(id(value))
            left.append(value)
        return value

    while left:
        here = left.pop()
        if type(here) is tuple:
            for value in here:
                passed(value)
            continue
        here = here.fields if type(here) is Record else here
        places = list(here) if type(here) is dict else range(len(here)) if type(here) is list else ()
        for place in places:
            here[place] = passed(here[place])
    return arrays.of(held) if type(held) is TensorSpec else held


class _Arrays:
    """The arrays of an archive; each file of it is read once."""

    def __init__(self, archive: zipfile.ZipFile, root: str, most_bytes: int):
        self._archive, self._root, self._left_bytes = archive, root, most_bytes
        self._stored: dict[str, bytes] = {}

    def of(self, spec: TensorSpec) -> np.ndarray:
        """Make the array of a description, whose bounds have been checked.

        Raises:
            ValueError: the archive holds less of it, or all arrays together are far larger than the archive.
        """
        key, dtype = spec.storage.key, np.dtype(_STORAGES[spec.storage.type_name])
        if key not in self._stored:
            self._stored[key] = _bytes(self._archive, f"{self._root}data/{key}")
        there = len(self._stored[key]) // dtype.itemsize
        if there < spec.storage.count:
            raise ValueError(f"array {key} has {there} elements, {spec.storage.count} are announced")
        self._left_bytes -= math.prod(spec.shape) * dtype.itemsize
        if self._left_bytes < 0:
            raise ValueError("its arrays are many times larger than the file")
        stored = np.frombuffer(self._stored[key], dtype, spec.storage.count)
        if not math.prod(spec.shape):
            return np.zeros(spec.shape, dtype)
        view = np.lib.stride_tricks.as_strided(
            stored[spec.offset :], spec.shape, [s * dtype.itemsize for s in spec.strides], writeable=False
        )
        return np.ascontiguousarray(view).reshape(spec.shape)
