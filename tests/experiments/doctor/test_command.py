"""The doctor's command: its exit status, JSON, page, and what it refuses."""

import fcntl
import json
import shutil

import pytest

from experiments.cli import main as cli
from experiments.doctor.curves import Curves
from experiments.doctor.findings import Diagnosis, Finding, sorted_findings
from experiments.doctor.report import draw, section, text
from experiments.doctor.transformers_log import SPELLING
from tests.experiments.cli.test_commands import fails
from tests.experiments.doctor import kept
from tests.experiments.report.test_figures import fits_a_page

HEALTHY = kept.RESULTS / "pretraining" / "ten-clients-fedavg.jsonl"


@pytest.fixture
def broken(tmp_path):
    """A kept run whose loss is lost half way."""
    path = tmp_path / "lines.jsonl"
    lines = [json.loads(line) for line in HEALTHY.read_text().splitlines()]
    for line in lines[20:]:
        line["loss"] = line["contrastive"] = None
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def status(*words):
    """The exit status as a shell sees it."""
    try:
        return cli.main(["doctor", *map(str, words)])
    except SystemExit as stop:
        return stop.code


def test_a_healthy_run_exits_with_0_and_says_what_it_is(capsys):
    assert status(HEALTHY) == 0
    told = capsys.readouterr().out
    assert f"{HEALTHY}: healthy\nw2v-jax pretrain, wav2vec 2.0 pre-training, 1,000 updates\n" in told
    assert "Training loss 4.656 to 3.921, held-out loss 3.750 to 3.819, accuracy 0.126" in told


def test_a_broken_run_exits_with_1_and_says_why_and_what_to_do(broken, capsys):
    assert status(broken) == 1
    told = capsys.readouterr().out
    assert "broken: loss not finite\n  because The training loss is not finite at 525 updates" in told
    assert "--learning-rate" in told.split("do ")[1]
    assert max(map(len, told.splitlines())) <= max(100, len(f"{broken}: broken"))


def test_json_has_the_verdict_findings_and_notes(broken, capsys):
    assert status(broken, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], told["verdict"], told["findings"][0]["name"]) == (
        str(broken), "broken", "loss not finite",
    )  # fmt: skip
    assert set(told["findings"][0]) == {"severity", "name", "because", "advice"}
    assert told["notes"] == [
        "There is no config.json beside the file: codes, distractors and the length of the run are assumed."
    ]


def test_the_page_holds_findings_and_curves_and_leaves_no_picture(broken, tmp_path, capsys):
    page = tmp_path / "pages" / "run.html"
    page.parent.mkdir()
    other = page.with_name("run-curves.png")  # somebody else's picture
    other.write_bytes(b"kept")
    assert status(broken, "--html", page) == 1
    html = page.read_text()
    assert "Is this run healthy?" in html
    assert "loss not finite" in html
    assert html.count("data:image/png;base64,") == 1
    assert {path.name for path in page.parent.iterdir()} == {"run.html", "run-curves.png"}
    assert other.read_bytes() == b"kept"
    capsys.readouterr()


@pytest.mark.parametrize("last", [{"wer": 0.5, "cer": 0.2, "rate": 1e-3}, {"codes": 50.0, "control": 0.1}])
def test_the_picture_fits_a_page(tmp_path, last):
    points = [{"step": step, "loss": 3.0 / step, "heldout_accuracy": 0.2} | last for step in (1.0, 2.0)]
    curves = Curves(writer="transformers", kind="unknown", points=points, spelling=SPELLING, entries=640)
    draw(curves, tmp_path / "curves.png")
    assert fits_a_page(tmp_path / "curves.png")


def test_what_is_no_run_is_one_line_with_the_formats(tmp_path, capfd):
    (tmp_path / "notes.txt").write_text("no log\n")
    (tmp_path / "config.json").write_text('{"settings": {"clips": 1}, "provenance": {}}')
    (tmp_path / "empty").mkdir()
    for path, words in (
        (tmp_path / "gone", "no such file or folder"),
        (tmp_path / "notes.txt", "is not understood"),
        (tmp_path / "empty", "is no run"),
        (tmp_path, "was written by another command"),
    ):
        told = fails(capfd, "doctor", str(path))
        assert words in told
        assert "fairseq" in told


def test_a_run_that_stopped_is_told_from_one_that_goes_on(tmp_path, capsys):
    settings = kept.settings_of("tiny", preset="ten-clients", clients=10, rounds=80)
    (tmp_path / "config.json").write_text(json.dumps({"settings": settings, "provenance": {}}))
    shutil.copy(HEALTHY, tmp_path / "metrics.jsonl")
    for words in ((tmp_path,), (tmp_path / "metrics.jsonl",)):
        assert status(*words) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert "1,000 of 2,000 updates" in told
        assert "The run has stopped before its end" in told
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert status(tmp_path) == 0
    assert "has stopped" not in capsys.readouterr().out


def test_the_worst_finding_decides_and_comes_first():
    watch, broken = Finding("watch", "a", "b.", "c."), Finding("broken", "d", "e.", "f.")
    diagnosis = Diagnosis(sorted_findings([watch, broken]), ("note.",))
    assert [held.name for held in diagnosis.findings] == ["d", "a"]
    assert (diagnosis.verdict, diagnosis.line()) == ("broken", "broken: d, a")
    assert Diagnosis([]).line() == "healthy"
    curves = Curves(
        writer="transformers", kind="unknown", points=[{"step": 3.0, "loss": 2.0}], spelling=SPELLING
    )
    written = section(curves, diagnosis)
    assert written.startswith("## Is this run healthy?\n\nThe run is broken")
    assert "- **broken: d.** e. *What to change:* f." in written
    assert "Training loss 2.0" in written
    assert "Training loss" not in section(curves, diagnosis, summarised=False)
    assert written.endswith("note.\n")
    assert "transformers, an unknown task, 3 updates" in text("run", curves, diagnosis)
