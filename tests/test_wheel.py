"""The wheel: what is in it, and that it works where only it and its dependencies are installed."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGES = ("w2v_jax", "fed", "profiling", "experiments")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (made,) = folder.iterdir()
    return made


def test_all_packages_with_their_data_and_nothing_else(wheel):
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "experiments/plan_grid.json" in expected
    assert "experiments/bench/rounds/peers/environments.py" in expected
    found = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in found if ".dist-info/" not in name} == expected


def test_no_file_is_fedjaxs_too(wheel):
    theirs = {path.as_posix() for path in importlib.metadata.files("fedjax") or ()}
    assert any(name.startswith("experiments/") for name in theirs)  # else the remark in pyproject.toml can go
    assert not theirs & set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(params=["fedjax first", "fedjax last"])
def installed(request, wheel, tmp_path):
    """Runs words in an environment that has the wheel, far from the checkout."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = tmp_path / "venv" / "lib" / version / "site-packages"
    dependencies = Path(sysconfig.get_path("purelib"))
    # Of a .pth file's folders .pth files are not read: an editable install of the checkout stays out of it.
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    theirs, ours = dependencies / "experiments", packages / "experiments"
    if request.param == "fedjax first":
        shutil.copytree(theirs, ours)
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*install, "--disable-pip-version-check", str(wheel)], check=True, capture_output=True)
    if request.param == "fedjax last":
        shutil.copytree(theirs, ours, dirs_exist_ok=True)
    (tmp_path / "work").mkdir()

    def run(*words):
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        argv = [str(python.with_name(words[0])), *words[1:]]
        done = subprocess.run(argv, cwd=tmp_path / "work", env=clean, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.packages = packages
    return run


def test_commands_work_where_no_checkout_is(installed, tmp_path):
    assert "w2v-jax COMMAND --help" in installed("w2v-jax", "--help")
    for package in PACKAGES:
        found = installed("python", "-c", f"import {package}; print({package}.__file__)")
        assert found.strip() == str(installed.packages / package / "__init__.py")
    code = (
        "from experiments.costs.devices import plan_surface; plan_surface.kept()\n"
        "from experiments.process.provenance import commit; print(commit())"
    )
    assert installed("python", "-c", code).strip() == "unknown"
    size = ("--speakers", "3", "--clips-per-speaker", "1", "--words", "10")
    assert "3 clips" in installed("w2v-jax", "data", "synth", "--out", "corpus", *size)
    assert (tmp_path / "work" / "corpus" / "xx" / "validated.tsv").is_file()
