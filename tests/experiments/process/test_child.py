"""Processes of our own, started from anybody's folder."""

from experiments.options.spelling import option_name
from experiments.process import child_process


def test_somebody_elses_package_of_our_name_is_not_ours(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise RuntimeError('not ours')")
    monkeypatch.chdir(tmp_path)
    assert child_process.run_in_child(option_name, "crop_seconds") == "--crop-seconds"
