"""Processes of our own, started from anybody's folder."""

from experiments import arguments, child


def test_somebody_elses_package_of_our_name_is_not_ours(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise RuntimeError('not ours')")
    monkeypatch.chdir(tmp_path)
    assert child.in_child(arguments.option_name, "crop_seconds") == "--crop-seconds"
