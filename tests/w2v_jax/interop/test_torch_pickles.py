"""Torch files are read without torch, and nothing that they name is run."""

import argparse
import struct
import zipfile

import numpy as np
import pytest

from tests import torch_files
from tests.torch_files import Evil, Tensor
from w2v_jax.errors import UserError
from w2v_jax.interop import fairseq, torch_pickles
from w2v_jax.interop.fairseq_settings import held_settings
from w2v_jax.interop.inert_pickles import Record

VALUES = {
    "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.array([1.5, -2.0], np.float16),
    "numbers": np.array(7, np.int64),
    "none": np.zeros((0, 3), np.float32),
}


def test_arrays_come_back(tmp_path):
    torch_files.save(tmp_path / "m.pt", {name: Tensor(value) for name, value in VALUES.items()})
    found = torch_pickles.read(tmp_path / "m.pt")
    assert found.keys() == VALUES.keys()
    for name, value in VALUES.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_settings_beside_arrays_are_inert_records(tmp_path):
    torch_files.save(tmp_path / "m.pt", {"args": argparse.Namespace(dropout=0.2), "model": {}})
    record = torch_pickles.read(tmp_path / "m.pt")["args"]
    assert isinstance(record, Record)
    assert record.fields == {"dropout": 0.2}


def test_a_pickle_that_runs_code_is_refused_without_running_it(tmp_path):
    trace = tmp_path / "it ran"
    torch_files.save(
        tmp_path / "m.pt", {"w": Tensor(np.ones(2)[:0].astype(np.float32)), "x": Evil(f"touch '{trace}'")}
    )
    with pytest.raises(UserError, match=r"refused: its pickle names (posix|nt|os)\.system"):
        torch_pickles.read(tmp_path / "m.pt")
    assert not trace.exists()


def test_other_files_are_said_to_be_none(tmp_path):
    path = tmp_path / "m.pt"
    path.write_bytes(b"\x80\x02 of the old format")
    with pytest.raises(UserError, match=r"since version 1\.6"):
        torch_pickles.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "x")
    with pytest.raises(UserError, match=r"no data\.pkl"):
        torch_pickles.read(path)


def test_arrays_that_reach_beyond_what_is_stored_are_refused(tmp_path):
    torch_files.save(tmp_path / "m.pt", {"w": Tensor(np.ones(4, np.float32))})
    with zipfile.ZipFile(tmp_path / "m.pt") as held:
        program = held.read("archive/data.pkl")
    with zipfile.ZipFile(tmp_path / "cut.pt", "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", b"\x00" * 8)
    with pytest.raises(UserError, match="damaged: array 0 has 2 elements, 4 are announced"):
        torch_pickles.read(tmp_path / "cut.pt")


def program(*steps):
    """A pickle of raw steps, to be written as the program of a file."""
    return b"\x80\x02" + b"".join(steps) + b"."


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def whole(value):
    return b"J" + struct.pack("<i", value)


def of(*parts):
    return b"(" + b"".join(parts) + b"t"


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def storage(kind, count):
    return of(text("storage"), named("torch", kind), text("0"), text("cpu"), whole(count)) + b"Q"


def tensor(of_storage, offset, shape, strides):
    sizes = (of(*map(whole, shape)), of(*map(whole, strides)))
    return named("torch._utils", "_rebuild_tensor_v2") + of(of_storage, whole(offset), *sizes) + b"R"


def write(path, steps, stored=b"", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", steps)
        archive.writestr("archive/data/0", stored)
    return path


REFUSED = {
    # Its bounds would be those of the whole, and its memory an array that can be written to.
    "a view of a view": tensor(
        tensor(storage("FloatStorage", 20), 0, (2, 10), (1, 2)), 1, (19,), (1,)
    ),
    "writing into an array": tensor(storage("FloatStorage", 4), 0, (4,), (1,)) + whole(9) + whole(1) + b"s",
    "beyond its end": tensor(storage("FloatStorage", 4), 1, (4,), (1,)),
    "negative strides": tensor(storage("FloatStorage", 4), 3, (4,), (-1,)),
    "more than is stored, without strides": tensor(storage("FloatStorage", 4), 0, (2**30, 2**12), (0, 0)),
    "attributes of the function that makes arrays": named("torch._utils", "_rebuild_tensor_v2")
    + b"N}" + text("__defaults__") + b")s\x86b",
    "attributes of a list": b"]}" + text("x") + whole(1) + b"sb",
    "a key that is too deep to compare": b"}N" + b"\x85" * 200_000 + b"Ns",
    "a call of what was made": b"})R",
    "a call of a type": named("builtins", "int") + of(whole(1)) + b"R",
    "an instance in the old way": b"(" + b"iargparse\nNamespace\n",
    "a set": b"\x8f",
    "an extension": b"\x82\x01",
    "a storage of another kind": of(
        text("module"), named("torch", "FloatStorage"), text("0"), text("cpu"), whole(1)
    ) + b"Q",
}  # fmt: skip


@pytest.mark.parametrize("steps", REFUSED.values(), ids=REFUSED)
def test_steps_that_no_array_needs_are_refused(tmp_path, steps):
    path = write(tmp_path / "m.pt", program(steps), b"\x00" * 80)
    with pytest.raises(UserError, match="damaged"):
        torch_pickles.read(path)


def test_attributes_of_dicts_are_not_kept(tmp_path):
    """numpy would take a dict with this attribute for an array at any address of memory."""
    address = b"}" + text("data") + of(whole(16), b"\x89") + b"s"
    held = named("collections", "OrderedDict") + b")R}" + text("__array_interface__") + address + b"sb"
    found = torch_pickles.read(write(tmp_path / "m.pt", program(held)))
    assert type(found) is dict
    assert found == {}
    save = b"}" + text("model") + b"}" + text("mask_emb") + held + b"ss"
    with pytest.raises(UserError, match="something else than named arrays"):
        fairseq.read(write(tmp_path / "f.pt", program(save)))


def test_arrays_cannot_be_written_to(tmp_path):
    torch_files.save(tmp_path / "m.pt", {"w": Tensor(np.ones(4, np.float32))})
    assert not torch_pickles.read(tmp_path / "m.pt")["w"].flags.writeable


def test_files_that_would_grow_are_refused(tmp_path):
    one = tensor(storage("ByteStorage", 1_000_000), 0, (1_000_000,), (1,))
    path = write(tmp_path / "m.pt", program(one), b"\x00" * 1_000_000, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="is compressed, as torch does not"):
        torch_pickles.read(path)
    many = b"](" + one * 10 + b"e"
    with pytest.raises(UserError, match="many times larger than the file"):
        torch_pickles.read(write(tmp_path / "m.pt", program(many), b"\x00" * 1_000_000))
    shared = b"](" + one * 2 + b"e"
    assert len(torch_pickles.read(write(tmp_path / "m.pt", program(shared), b"\x00" * 1_000_000))) == 2


def test_values_that_hold_one_another_end(tmp_path):
    """A list of itself, and twins of twins of twins."""
    itself = torch_pickles.read(write(tmp_path / "m.pt", program(b"]q\x00h\x00a")))
    assert itself[0] is itself
    twins = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(60))
    torch_pickles.read(write(tmp_path / "m.pt", program(twins)))


@pytest.mark.parametrize("change", ["encrypted", "of an unknown compression", "cut"])
def test_damaged_archives_are_one_line(tmp_path, change):
    path = write(tmp_path / "m.pt", program(b"N"))
    data = bytearray(path.read_bytes())
    entry = data.find(b"PK\x01\x02")
    if change == "encrypted":
        data[entry + 8] |= 1
        data[6] |= 1
    elif change == "cut":
        data[30 + len("archive/data.pkl")] ^= 0xFF
    else:
        data[entry + 10] = 99
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"m\.pt is (damaged|not a file)"):
        torch_pickles.read(path)


def test_names_of_omegaconf_are_inert(tmp_path):
    """Its nodes name types, and keep values in one another."""
    node = named("omegaconf.nodes", "AnyNode") + b")\x81}" + text("_val") + whole(7) + b"sb"
    kept = b"}" + text("ref_type") + named("typing", "Any") + b"s"
    kept += text("_content") + b"}" + text("conv_pos") + node + b"ss"
    config = named("omegaconf.dictconfig", "DictConfig") + b")\x81" + kept + b"b"
    held = torch_pickles.read(
        write(tmp_path / "m.pt", program(b"}" + text("cfg") + b"}" + text("model") + config + b"ss"))
    )
    assert held_settings(held).model == {"conv_pos": 7}
