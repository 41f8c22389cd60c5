"""What comes back from boards: read where it is sound, refused in one line where it is not."""

import json

import pytest

from experiments.costs.devices import timings
from experiments.costs.devices.timings import read_timings
from w2v_jax.errors import UserError

RECORD = {
    "format": 1,
    "status": "timed",
    "artifact": {
        "settings": {
            "model": "base",
            "seconds": 5.5,
            "batch": 4,
            "precision": "fp32",
            "method": "plain",
            "optimizer": "adamw",
        }
    },
    "device": None,
    "board": {"model": "NVIDIA Jetson Xavier NX Developer Kit", "cpu": None},
    "median_seconds": 1.7,
    "spread": 0.02,
}


@pytest.fixture
def write(tmp_path):
    def write(**changes):
        path = tmp_path / "timings.json"
        path.write_text(json.dumps(RECORD | changes))
        return path

    return write


def test_a_board_is_known_by_its_own_name(write):
    measured = read_timings(write())
    assert (measured.device, measured.title) == ("xavier-nx", "Jetson Xavier NX")
    assert (measured.key, measured.seconds, measured.spread) == (("base", 4, "fp32"), 1.7, 0.02)


def test_a_label_goes_before_the_name(write):
    assert read_timings(write(device="orin-nx")).device == "orin-nx"


def test_an_unknown_board_is_named_and_kept(write):
    measured = read_timings(write(board={"model": "Some Board", "cpu": None}, device="mine"))
    assert (measured.device, measured.title, measured.seconds) == (None, "mine", 1.7)
    unnamed = read_timings(write(board={"model": None, "cpu": None}))
    assert (unnamed.device, unnamed.title) == (None, "a board without a name")


def test_out_of_memory_is_a_result(write):
    measured = read_timings(write(status="out_of_memory", median_seconds=None, spread=None))
    assert measured.seconds is None
    assert measured.spread is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": 9}, "format 9"),
        ({"status": "wrong_result"}, "wrong numbers"),
        ({"status": "fine"}, "unknown status"),
        ({"median_seconds": -1.0}, "cannot take"),
        ({"median_seconds": None}, "cannot take"),
        ({"median_seconds": "NaN"}, "cannot take"),
        ({"artifact": {}}, "not a timings.json"),
        ({"board": None}, "not a timings.json"),
    ],
)
def test_what_is_not_sound_is_refused(write, changes, expected):
    with pytest.raises(UserError, match=expected):
        read_timings(write(**changes))


@pytest.mark.parametrize("content", ["", "{", "[1]", '"x"', '{"format": 1'])
def test_what_is_no_timings_file_is_refused(tmp_path, content):
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"t\.json"):
        read_timings(path)
    with pytest.raises(UserError, match="cannot read"):
        read_timings(tmp_path / "absent.json")


def test_the_settings_are_those_of_a_step():
    from dataclasses import fields

    from experiments.costs.step.training_step import StepSettings

    assert set(timings.SETTINGS) == {field.name for field in fields(StepSettings)}
