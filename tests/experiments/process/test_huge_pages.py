"""The command starts over with huge pages once, where it can ask for them, and not else."""

import os
import subprocess
import sys

import pytest

from experiments.process import huge_pages
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("kernel", "library", "tunables", "expected"),
    [
        ("always [madvise] never", "glibc 2.36", None, True),
        ("always [madvise] never", "glibc 2.36", "glibc.malloc.check=1", True),
        ("always [madvise] never", "glibc 2.36", "glibc.malloc.hugetlb=0", False),
        ("always [madvise] never", "glibc 2.31", None, False),
        ("always [madvise] never", "musl 1.2", None, False),
        ("[always] madvise never", "glibc 2.36", None, False),
        ("always madvise [never]", "glibc 2.36", None, False),
        (None, "glibc 2.36", None, False),
        ("always [madvise] never", "glibc x.y", None, False),
    ],
)
def test_who_is_asked(kernel, library, tunables, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(huge_pages, "ENABLED", tmp_path / "enabled")
    if kernel is not None:
        (tmp_path / "enabled").write_text(kernel)
    monkeypatch.setattr(os, "confstr", lambda name: library, raising=False)
    environment = {"GLIBC_TUNABLES": tunables} if tunables else {}
    assert huge_pages.wanted(environment) is expected
    assert not huge_pages.wanted(environment | {huge_pages.STARTED_OVER: "1"})


def test_who_spares_memory_has_small_pages(monkeypatch):
    """Else the program would be started over, which a test would not survive."""
    monkeypatch.setattr(huge_pages, "wanted", lambda environment: True)
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    for options in (["--method", "exact"], ["--method=exact"], ["--memory-budget", "4GB"]):
        monkeypatch.setattr(sys, "argv", ["w2v-jax", "pretrain", *options])
        huge_pages.start_over_with_huge_pages()
        assert huge_pages.STARTED_OVER not in os.environ
    for options in ([], ["--method", "plain"], ["--method=plain", "--model", "base"]):
        assert not huge_pages.spares_memory(options)


def test_the_same_process_starts_over_once_with_the_same_arguments(tmp_path):
    (tmp_path / "enabled").write_text("always [madvise] never")
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from experiments.process import huge_pages\n"
        f"huge_pages.ENABLED = Path({str(tmp_path / 'enabled')!r})\n"
        "os.confstr = lambda name: 'glibc 2.36'\n"
        "print(os.getpid(), flush=True)\n"
        "huge_pages.start_over_with_huge_pages()\n"
        "print(os.environ['GLIBC_TUNABLES'], sys.argv[1:])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GLIBC_TUNABLES": "glibc.malloc.check=0"}
    environment.pop(huge_pages.STARTED_OVER, None)
    done = subprocess.run(
        [sys.executable, str(program), "a b", "--c"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    first, second, said = done.stdout.splitlines()
    assert first == second
    assert said == "glibc.malloc.check=0:glibc.malloc.hugetlb=1 ['a b', '--c']"
