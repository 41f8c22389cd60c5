"""Files as torch writes them, without torch: for tests of what reads them."""

import contextlib
import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}


def _module(name, **members):
    module = types.ModuleType(name)
    for member, value in members.items():
        setattr(module, member, value)
        value.__module__, value.__qualname__ = name, member
    return module


def rebuild(*arguments):
    raise AssertionError("torch's own function is never called")


def make_record():
    class Namespace:
        pass

    return Namespace


class Tensor:
    """An array on its way into a file."""

    def __init__(self, array):
        self.array = np.asarray(array)


class Evil:
    """Something that runs a command when it is read."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


@contextlib.contextmanager
def torch_names():
    """Modules of torch's names while a pickle is written."""
    storages = {name: type(name, (), {}) for name in STORAGES.values()}
    made = {
        "torch": _module("torch", **storages),
        "torch._utils": _module("torch._utils", _rebuild_tensor_v2=rebuild),
    }
    held = {name: sys.modules.get(name) for name in made}
    sys.modules |= made
    try:
        yield made["torch"]
    finally:
        for name, module in held.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def save(path, value):
    """Write a value whose Tensors become arrays of the archive."""
    arrays = []
    with torch_names() as torch:

        class Pickler(pickle.Pickler):
            def persistent_id(self, item):
                if not isinstance(item, _Storage):
                    return None
                kind = getattr(torch, STORAGES[item.array.dtype.name])
                return ("storage", kind, str(item.key), "cpu", item.array.size)

            def reducer_override(self, item):
                if not isinstance(item, Tensor):
                    return NotImplemented
                array = np.ascontiguousarray(item.array)
                arrays.append(array)
                strides = tuple(s // array.itemsize for s in array.strides)
                storage = _Storage(len(arrays) - 1, array)
                return rebuild, (storage, 0, array.shape, strides, False, OrderedDict())

        out = io.BytesIO()
        Pickler(out, protocol=2).dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", out.getvalue())
        for key, array in enumerate(arrays):
            archive.writestr(f"archive/data/{key}", array.tobytes())


class _Storage:
    def __init__(self, key, array):
        self.key, self.array = key, array
