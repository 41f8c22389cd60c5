"""Processes of our own, started from anybody's folder."""

import os
import signal
import subprocess

import pytest

from experiments.options.spelling import option_name
from experiments.process import child_process


def test_somebody_elses_package_of_our_name_is_not_ours(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise RuntimeError('not ours')")
    monkeypatch.chdir(tmp_path)
    assert child_process.run_in_child(option_name, "learning_rate") == "--learning-rate"


def fails_with(words: str) -> dict:
    """Child: fail with an error message, or by a signal."""
    if words == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError(words)


@pytest.mark.parametrize(
    ("words", "reason"),
    [("no such step", "ValueError: no such step"), ("kill", "killed by SIGKILL, which usually means")],
)
def test_a_failed_child_tells_why(words, reason):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        child_process.run_in_child(fails_with, words, keep_errors=True)
    assert reason in child_process.why_it_failed(failed.value)
