"""Torch files are read without torch, and nothing that they name is run."""

import argparse
import zipfile

import numpy as np
import pytest

from tests import torch_files
from tests.torch_files import Evil, Tensor
from w2v_jax import torch_pickles
from w2v_jax.errors import UserError

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
    assert isinstance(record, torch_pickles.Record)
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
    with pytest.raises(ValueError, match="reaches beyond"):
        torch_pickles._tensor(np.ones(4, np.float32), 1, (4,), (1,))
