"""Logs that a newcomer tried: a recognizer that lost its words, a log of one point, a folder for a page."""

import json

from experiments.doctor.diagnosis import diagnose
from experiments.doctor.reading import read
from tests.experiments.cli.test_commands import fails


def state(tmp_path, points):
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": points, "max_steps": 300, "global_step": 300}))
    return path


def test_a_recognizer_that_lost_its_words_is_broken(tmp_path):
    points = []
    for step, loss, wer in ((100, 3.2, 0.9), (200, 1.1, 0.6), (300, 9.2, 1.0)):
        points += [{"step": step, "loss": loss}, {"step": step, "eval_loss": loss, "eval_wer": wer}]
    found = diagnose(read(state(tmp_path, points)))
    assert found.verdict == "broken"
    names = [held.name for held in found.findings]
    assert "blank phase of CTC" not in names
    (lost,) = [held for held in found.findings if held.name == "training diverged"]
    assert "The WER fell to 60.0 % at 200 updates and is 100.0 % now" in lost.because
    assert "Lower --learning_rate" in lost.advice


def test_letters_without_words_are_to_be_watched(tmp_path):
    points = [
        {"step": 10 * i, "eval_loss": 3.0 - 0.1 * i, "eval_wer": 1.0, "eval_cer": 0.9 - 0.1 * i}
        for i in range(1, 5)
    ]
    found = diagnose(read(state(tmp_path, points)))
    (yet,) = [held for held in found.findings if held.name == "no word yet"]
    assert "WER 100.0 %" in yet.because
    assert "CER 50.0 %" in yet.because


def test_one_point_is_too_little(tmp_path):
    found = diagnose(read(state(tmp_path, [{"step": 100, "loss": 4.5}])))
    assert (found.verdict, found.findings[0].name) == ("watch", "too little to judge")


def test_a_folder_for_a_page_is_one_line_and_leaves_nothing(tmp_path, capfd):
    path = state(tmp_path, [{"step": 100, "loss": 4.5}, {"step": 200, "loss": 4.0}])
    (tmp_path / "pages").mkdir()
    words = fails(capfd, "doctor", str(path), "--html", str(tmp_path / "pages"))
    assert "--html takes a file, such as" in words
    assert sorted(held.name for held in tmp_path.iterdir()) == ["pages", "trainer_state.json"]
