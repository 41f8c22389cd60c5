import json

import pytest

from experiments.process.files import finite_or_none, read_json
from experiments.runs.folder import DIAGNOSTICS, RunFolder, read_config, read_metrics
from w2v_jax.errors import UserError

SETTINGS = {"rounds": 3, "model": "tiny"}


def test_same_settings_open_again_and_others_are_refused(tmp_path):
    run = RunFolder(tmp_path / "run", SETTINGS, {})
    assert not (tmp_path / "run" / "config.json").exists()
    run.begin()
    run.close()
    RunFolder(tmp_path / "run", dict(SETTINGS), {}).close()
    with pytest.raises(UserError, match="rounds: 3 there, 4 here"):
        RunFolder(tmp_path / "run", SETTINGS | {"rounds": 4}, {})
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"] == SETTINGS


def test_a_longer_run_keeps_what_it_has_until_it_goes_on(tmp_path):
    run = RunFolder(tmp_path / "run", SETTINGS, {"commit": "first"})
    run.begin()
    run.append({"round": 1})
    run.close()
    longer = SETTINGS | {"rounds": 4}
    with pytest.raises(UserError, match="model: tiny there, base here"):
        RunFolder(tmp_path / "run", longer | {"model": "base"}, {}, may_grow="rounds")
    with pytest.raises(UserError, match="rounds: 3 there, 2 here"):
        RunFolder(tmp_path / "run", SETTINGS | {"rounds": 2}, {}, may_grow="rounds")
    run = RunFolder(tmp_path / "run", longer, {"commit": "second"}, may_grow="rounds")
    assert run.planned_before == 3
    run.begin()  # what is refused from here on leaves the run as it was
    assert read_config(run.path)["settings"] == SETTINGS
    run.rewind(1)
    run.close()
    lengthened = [{"planned": 3, "after": 1}]
    assert read_config(run.path) == {
        "settings": longer, "provenance": {"commit": "first"}, "lengthened": lengthened,
    }  # fmt: skip
    run = RunFolder(tmp_path / "run", SETTINGS | {"rounds": 9}, {}, may_grow="rounds")
    run.rewind(1)
    run.close()
    assert read_config(run.path)["lengthened"] == [*lengthened, {"planned": 4, "after": 1}]


def test_a_folder_keeps_settings_that_follow_from_others(tmp_path):
    run = RunFolder(tmp_path / "run", SETTINGS | {"every": 2}, {})
    run.begin()
    run.close()
    for writes in (True, False):  # other processes of the same run read the same
        run = RunFolder(tmp_path / "run", SETTINGS | {"every": 3}, {}, keeps=("every",), writes=writes)
        assert run.settings["every"] == 2
        run.close()


def test_two_runs_at_once_are_refused(tmp_path):
    first = RunFolder(tmp_path / "run", SETTINGS, {})
    with pytest.raises(UserError, match="in use by another process"):
        RunFolder(tmp_path / "run", SETTINGS, {})
    first.close()


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "run", SETTINGS, {})


def test_rewind_drops_later_rounds_and_a_line_cut_short(tmp_path):
    run = RunFolder(tmp_path / "run", SETTINGS, {})
    for number in range(1, 5):
        run.append({"round": number, "loss": float("nan")})
    with run.metrics_path.open("a") as out:
        out.write('{"round": 5, "lo')
    run.rewind(2)
    assert read_metrics(run.metrics_path) == [{"round": 1, "loss": None}, {"round": 2, "loss": None}]
    run.close()


def test_rewind_keeps_files_of_rounds_together(tmp_path):
    run = RunFolder(tmp_path / "run", SETTINGS, {})
    for number in (2, 4):
        run.append({"round": number}, DIAGNOSTICS)
    run.rewind(3)
    assert read_metrics(tmp_path / "run" / DIAGNOSTICS) == [{"round": 2}]
    run.close()


def test_numbers_that_json_lacks_become_null():
    assert finite_or_none({"a": [1.0, float("inf")], "b": "x"}) == {"a": [1.0, None], "b": "x"}


def test_a_file_of_an_older_version_goes_without_added_keys(tmp_path):
    folder = RunFolder(tmp_path / "run", {}, {})
    folder.begin()
    folder.pin("data.json", {"train": {"clips": 3}, "tokens": 5})
    now = {"train": {"clips": 3, "changed": {"joined": 1}}, "tokens": 5}
    folder.pin("data.json", now, added=("changed",))
    assert read_json(folder.path / "data.json") == {"train": {"clips": 3}, "tokens": 5}
    with pytest.raises(UserError, match="changed since it began"):
        folder.pin("data.json", {**now, "tokens": 6}, added=("changed",))
    folder.close()
