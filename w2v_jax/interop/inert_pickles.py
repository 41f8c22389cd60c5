"""Read a pickle as inert values: no function is called, and only objects of this file are made.

A pickle is a program. It can name any function of any module and have it called, set attributes of objects
that it made before, and write into them; in memory that arrays share, this is enough to run code. This reader
therefore knows a few names, which stand only for themselves. It carries out the pickle's steps itself and
gives numbers, texts, dicts, lists, tuples, `Record`s and `TensorSpec`s. Arrays are made after the pickle
has ended.
"""

import io
import pickle
from typing import Any, NamedTuple

# Steps that pickles of arrays and settings consist of. Sets, buffers and other kinds of calls are not among
# them.
_PLAIN = (
    "MARK", "STOP", "POP", "POP_MARK", "DUP", "FLOAT", "INT", "BININT", "BININT1", "LONG", "BININT2",
    "NONE", "BINPERSID", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "EMPTY_DICT",
    "GLOBAL", "DICT", "EMPTY_LIST", "LIST", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT",
    "LONG_BINPUT", "TUPLE", "EMPTY_TUPLE", "BINFLOAT", "PROTO", "TUPLE1", "TUPLE2", "TUPLE3", "NEWTRUE",
    "NEWFALSE", "LONG1", "LONG4", "BINBYTES", "SHORT_BINBYTES", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES8", "STACK_GLOBAL", "MEMOIZE", "FRAME",
)  # fmt: skip
# Modules whose classes hold settings: their fields are read, and their code is never imported.
_RECORDS = ("argparse", "omegaconf", "fairseq")
# Names that omegaconf's nodes mention. A call of the first kind makes an empty dict; the second are never
# called.
_DICTS = (("collections", "OrderedDict"), ("collections", "defaultdict"), ("builtins", "dict"))
_TYPES = (
    ("typing", "Any"),
    *(("builtins", name) for name in ("int", "float", "str", "bool", "list", "tuple")),
)
_TENSOR, _PARAMETER = ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")
_MOST = 2**48  # limit of an offset, a length or a stride, in elements: more than any file holds


class RefusedError(Exception):
    """The pickle names something that no array needs."""


class Name(NamedTuple):
    """A class or a function that a pickle names."""

    module: str
    name: str


class StorageSpec(NamedTuple):
    """An array of the archive that has not been read yet.

    Attributes:
        type_name: torch's name of its storage's type.
        key: the name of its file.
        count: number of its elements.
    """

    type_name: str
    key: str
    count: int


class TensorSpec(NamedTuple):
    """Describe a view of a storage, within its bounds. Offset and strides count elements."""

    storage: StorageSpec
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Record:
    """Settings of a class that is not imported; `fields` holds the values that the file gives them."""

    __slots__ = ("fields", "given", "name")

    def __init__(self, name: Name, given: tuple[Any, ...]):
        self.name, self.given, self.fields = name, given, dict[Any, Any]()


def loads(data: bytes, storages: tuple[str, ...]) -> Any:
    """Read the value that a pickle holds.

    Args:
        data: the pickle.
        storages: names of types of arrays in the module torch.

    Raises:
        RefusedError: it names anything but arrays and settings; nothing of it has been run.
        ValueError, pickle.UnpicklingError, EOFError, IndexError, KeyError, TypeError, ...: it is damaged.
    """
    return _Reader(data, storages).load()


# The unpickler in Python, whose every step can be replaced.
_Unpickler: Any = vars(pickle)["_Unpickler"]


class _Reader(_Unpickler):
    """Carries out a pickle's steps: those of `_PLAIN` as pickle does, all others in its own way."""

    def __init__(self, data: bytes, storages: tuple[str, ...]):
        super().__init__(io.BytesIO(data))
        self._storages = storages

    def find_class(self, module: str, name: str) -> Name:
        """Return the name itself if it is known; refuse it otherwise."""
        module = {"__builtin__": "builtins"}.get(module, module)
        known = (module, name) in (*_DICTS, *_TYPES, _TENSOR, _PARAMETER)
        if known or (module == "torch" and name in self._storages) or module.split(".")[0] in _RECORDS:
            return Name(module, name)
        raise RefusedError(_shown(f"{module}.{name}"))

    def persistent_load(self, pid: Any) -> StorageSpec:
        """Describe an array of the archive, given as ("storage", type, key, device, elements)."""
        if type(pid) is not tuple or len(pid) not in (5, 6):  # older files have a sixth, None
            raise ValueError("an array is kept in a way that torch does not")
        kind, storage, key, _, count = pid[:5]
        known = type(storage) is Name and storage.module == "torch" and storage.name in self._storages
        if kind != "storage" or not known or type(key) is not str:
            raise ValueError(f"it keeps '{_shown(kind)}' where arrays are kept")
        return StorageSpec(storage.name, key, _whole(count))

    def call(self) -> None:
        """Carry out REDUCE and NEWOBJ: a call of a known name with arguments."""
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
        """Carry out BUILD: set fields of a record. A dict's attributes (torch's _metadata) are not kept."""
        state, made = self.stack.pop(), self.stack[-1]
        if type(made) is Record:
            for part in state if type(state) is tuple else (state,):
                if type(part) is dict:
                    made.fields.update(part)
        elif type(made) is not dict:
            raise ValueError("it sets attributes of what has none")

    def set_items(self, pairs: list[Any]) -> None:
        """Set items of a dict or fields of a record, whose keys are names or numbers.

        Other keys may be nested too deep to compare.
        """
        made = self.stack[-1]
        fields = made.fields if type(made) is Record else made
        if type(fields) is not dict:
            raise ValueError("it writes into what is no dict")
        if len(pairs) % 2 or not all(type(key) in (str, int) for key in pairs[::2]):
            raise ValueError("a dict has keys that are neither names nor numbers")
        fields.update(zip(pairs[::2], pairs[1::2], strict=True))

    def append_items(self, items: list[Any]) -> None:
        """Append items to a list."""
        if type(self.stack[-1]) is not list:
            raise ValueError("it appends to what is no list")
        self.stack[-1].extend(items)

    def set_one(self) -> None:
        """Carry out SETITEM: set one item."""
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def new_dict(self) -> None:
        """Carry out DICT: make a dict of all items since the mark."""
        pairs = self.pop_mark()
        self.append({})
        self.set_items(pairs)

    def refuse(self) -> None:
        """Refuse any other step."""
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
    """Make a text of the file fit for a message: short, and without characters that control a terminal."""
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
