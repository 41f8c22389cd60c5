"""A pickle as inert values: no function is called, no object but those of this file is made.

A pickle is a program. It can name any function of any module and have it called, set attributes of what was
made before, and write into it; of memory that arrays share that is enough to run code. So this reader knows a
few names, which stand for nothing but themselves, does by itself what the pickle asks of them, and gives
numbers, texts, dicts, lists, tuples, `Record`s and `TensorSpec`s: arrays are made when the pickle has ended.
"""

import io
import pickle
from typing import Any, NamedTuple

# What pickles of arrays and settings are made of; sets, buffers and calls of other kinds are not among it.
_PLAIN = (
    "MARK", "STOP", "POP", "POP_MARK", "DUP", "FLOAT", "INT", "BININT", "BININT1", "LONG", "BININT2",
    "NONE", "BINPERSID", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "EMPTY_DICT",
    "GLOBAL", "DICT", "EMPTY_LIST", "LIST", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT",
    "LONG_BINPUT", "TUPLE", "EMPTY_TUPLE", "BINFLOAT", "PROTO", "TUPLE1", "TUPLE2", "TUPLE3", "NEWTRUE",
    "NEWFALSE", "LONG1", "LONG4", "BINBYTES", "SHORT_BINBYTES", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES8", "STACK_GLOBAL", "MEMOIZE", "FRAME",
)  # fmt: skip
# Classes of settings, by the module that they are in: their fields are read, their code is not there.
_RECORDS = ("argparse", "omegaconf", "fairseq")
# Names that omegaconf's nodes speak of; called they are an empty dict, or nothing at all.
_DICTS = (("collections", "OrderedDict"), ("collections", "defaultdict"), ("builtins", "dict"))
_TYPES = (
    ("typing", "Any"),
    *(("builtins", name) for name in ("int", "float", "str", "bool", "list", "tuple")),
)
_TENSOR, _PARAMETER = ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")
_MOST = 2**48  # of an offset, a length or a stride: more than any file holds


class RefusedError(Exception):
    """The pickle names something that no array needs."""


class Name(NamedTuple):
    """A class or a function that a pickle names."""

    module: str
    name: str


class StorageSpec(NamedTuple):
    """An array of the archive, not read yet.

    Attributes:
        type_name: of its elements, as torch calls it.
        key: its file.
        count: elements.
    """

    type_name: str
    key: str
    count: int


class TensorSpec(NamedTuple):
    """A view of a storage, within its bounds. Offset and strides count elements."""

    storage: StorageSpec
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Record:
    """Settings of a class that is not here: what the file says of them, as attributes of `fields`."""

    __slots__ = ("fields", "given", "name")

    def __init__(self, name: Name, given: tuple[Any, ...]):
        self.name, self.given, self.fields = name, given, dict[Any, Any]()


def loads(data: bytes, storages: tuple[str, ...]) -> Any:
    """What a pickle says.

    Args:
        data: the pickle.
        storages: names in the module torch that are types of arrays.

    Raises:
        RefusedError: it names anything else than arrays and settings; nothing of it has been run.
        ValueError, pickle.UnpicklingError, EOFError, IndexError, KeyError, TypeError, ...: it is damaged.
    """
    return _Reader(data, storages).load()


# The unpickler in Python, whose every step can be replaced.
_Unpickler: Any = vars(pickle)["_Unpickler"]


class _Reader(_Unpickler):
    """Goes through a pickle's steps: those of `_PLAIN` as pickle does, those that could do more by itself."""

    def __init__(self, data: bytes, storages: tuple[str, ...]):
        super().__init__(io.BytesIO(data))
        self._storages = storages

    def find_class(self, module: str, name: str) -> Name:
        """The name itself, if it is one of those that are known."""
        module = {"__builtin__": "builtins"}.get(module, module)
        known = (module, name) in (*_DICTS, *_TYPES, _TENSOR, _PARAMETER)
        if known or (module == "torch" and name in self._storages) or module.split(".")[0] in _RECORDS:
            return Name(module, name)
        raise RefusedError(_shown(f"{module}.{name}"))

    def persistent_load(self, pid: Any) -> StorageSpec:
        """An array of the archive, by ("storage", type, key, device, elements)."""
        if type(pid) is not tuple or len(pid) not in (5, 6):  # older files have a sixth, None
            raise ValueError("an array is kept in a way that torch does not")
        kind, storage, key, _, count = pid[:5]
        known = type(storage) is Name and storage.module == "torch" and storage.name in self._storages
        if kind != "storage" or not known or type(key) is not str:
            raise ValueError(f"it keeps '{_shown(kind)}' where arrays are kept")
        return StorageSpec(storage.name, key, _whole(count))

    def call(self) -> None:
        """What REDUCE and NEWOBJ ask for: a known name, with arguments."""
        given, called = self.stack.pop(), self.stack.pop()
        if type(called) is not Name or type(given) is not tuple:
            raise ValueError("it calls what is no name")
        if called == _TENSOR:
            made = _tensor(*given[:4])
        elif called == _PARAMETER:
            made = given[0]
        elif called in _DICTS:
            made = dict[Any, Any]()
        elif called.module.split(".")[0] in _RECORDS:
            made = Record(called, given)
        else:
            raise ValueError(f"it calls {_shown(f'{called.module}.{called.name}')}")
        self.append(made)

    def build(self) -> None:
        """BUILD: fields of a record; a dict's attributes (torch's _metadata) are not kept."""
        state, made = self.stack.pop(), self.stack[-1]
        if type(made) is Record:
            for part in state if type(state) is tuple else (state,):
                if type(part) is dict:
                    made.fields.update(part)
        elif type(made) is not dict:
            raise ValueError("it sets attributes of what has none")

    def set_items(self, pairs: list[Any]) -> None:
        """Of a dict or a record, by names or numbers: other keys may be too deep to compare."""
        made = self.stack[-1]
        fields = made.fields if type(made) is Record else made
        if type(fields) is not dict:
            raise ValueError("it writes into what is no dict")
        if len(pairs) % 2 or not all(type(key) in (str, int) for key in pairs[::2]):
            raise ValueError("a dict has keys that are neither names nor numbers")
        fields.update(zip(pairs[::2], pairs[1::2], strict=True))

    def append_items(self, items: list[Any]) -> None:
        """To a list."""
        if type(self.stack[-1]) is not list:
            raise ValueError("it appends to what is no list")
        self.stack[-1].extend(items)

    def set_one(self) -> None:
        """SETITEM."""
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def new_dict(self) -> None:
        """DICT: of all since the mark."""
        pairs = self.pop_mark()
        self.append({})
        self.set_items(pairs)

    def refuse(self) -> None:
        """Any other step."""
        raise ValueError("it has steps that no array needs")


def _steps() -> dict[int, Any]:
    held = dict.fromkeys(range(256), _Reader.refuse)
    usual = _Unpickler.dispatch
    held |= {getattr(pickle, name)[0]: usual[getattr(pickle, name)[0]] for name in _PLAIN}
    return held | {
        pickle.REDUCE[0]: _Reader.call,
        pickle.NEWOBJ[0]: _Reader.call,
        pickle.BUILD[0]: _Reader.build,
        pickle.SETITEM[0]: _Reader.set_one,
        pickle.SETITEMS[0]: lambda self: self.set_items(self.pop_mark()),
        pickle.APPEND[0]: lambda self: self.append_items([self.stack.pop()]),
        pickle.APPENDS[0]: lambda self: self.append_items(self.pop_mark()),
        pickle.DICT[0]: _Reader.new_dict,
    }


_Reader.dispatch = _steps()


def _shown(text: Any) -> str:
    """A text of the file for a message: short, and nothing that a terminal takes for more than a letter."""
    return (
        "".join(c if c.isprintable() else "?" for c in text[:80]) if type(text) is str else "what is no text"
    )


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError("a size of an array is no whole number")
    return value


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> TensorSpec:
    if type(storage) is not StorageSpec or type(shape) is not tuple or type(strides) is not tuple:
        raise ValueError("an array is described in a way that torch does not")
    offset, shape, strides = _whole(offset), tuple(map(_whole, shape)), tuple(map(_whole, strides))
    if len(shape) != len(strides) or len(shape) > 32:
        raise ValueError("an array's strides are not those of its shape")
    elements = 1
    for length in shape:
        elements *= length
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if elements and (last >= storage.count or elements > storage.count):
        raise ValueError("an array reaches beyond what is stored of it")
    return TensorSpec(storage, offset, shape, strides)
