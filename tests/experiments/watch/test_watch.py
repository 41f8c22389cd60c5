"""watch: what it says of runs that go on, stopped or are done, and of what is no run."""

import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from experiments.cli import main as cli
from experiments.runs.folder import METRICS, RunFolder, read_metrics
from experiments.runs.lock import in_use
from experiments.watch import command as watch
from experiments.watch.command import follow
from experiments.watch.jsonl_tail import JsonLines
from experiments.watch.run_state import RunReader
from experiments.watch.sparkline import ASCII_LEVELS, Sparkline, drawn
from experiments.watch.view import view
from tests.experiments.cli.test_commands import fails
from tests.experiments.runs.test_events import assert_events_are_metrics, summaries
from w2v_jax.checkpoint import Checkpoints
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.errors import UserError

SETTINGS = {
    "model": "tiny", "preset": "hundred-clients", "aggregation": "loss-weighted", "clients": 100,
    "clients_per_round": 20, "rounds": 10, "server_optimizer": "fedadam", "corruption": "none", "seed": 7,
}  # fmt: skip
RECOGNITION = {
    "init": "runs/first", "model": None, "features": "encoder", "freeze": "encoder", "tokens": "characters",
    "select_by": "cer", "updates": None, "seed": 7,
}  # fmt: skip
ROUNDS = 6


def round_line(number, **columns):
    values = {
        "round": number, "loss": 5.0 - number, "contrastive": 4.5 - number, "code_perplexity": 90.0,
        "clients": 18, "skipped_clients": 1, "late_clients": 0, "dropped_clients": 2, "round_seconds": 6.0,
        "client_ids": ["a", "b"],
    }  # fmt: skip
    return values | columns


def validation(update, wer):
    return {
        "update": update, "epoch": update / 100, "loss": 2.0, "dev_loss": 2.5, "dev_wer": wer, "dev_cer": 0.5,
        "skipped_updates": 1, "encoder_learning_rate": 0.0, "head_learning_rate": 1e-3, "train_seconds": 9.0,
        "evaluation_seconds": 1.0,
    }  # fmt: skip


def begun(folder, settings=SETTINGS):
    """A run that a process, this one, is in."""
    run = RunFolder(folder, settings, {})
    run.begin()
    run.rewind(0, "round" if "rounds" in settings else "update")
    return run


def shown(*folders, width=120):
    """The words of one look."""
    console = Console(file=io.StringIO(), width=width)
    console.print(view([RunReader(folder).read() for folder in folders]))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return write_corpus(folder, SyntheticConfig(speakers=4, clips_per_speaker=3, words=10, seed=4))


def pretrain(corpus, out):
    options = [
        "--preset", "ten-clients", "--clients", "2", "--rounds", str(ROUNDS), "--local-steps", "1",
        "--batch", "2", "--seconds", "0.6", "--checkpoint-every", "2", "--heldout-speakers", "1",
        "--evaluate-every", "2", "--lanes", "1",
    ]  # fmt: skip
    return cli.main(["pretrain", "--data", str(corpus), "--out", str(out), *options])


@pytest.mark.slow
def test_a_run_that_is_cut_off_and_continued(corpus, tmp_path, monkeypatch, capfd):
    out, save = tmp_path / "run", Checkpoints.save

    def cut_off(self, round_index, state):
        if round_index == 4:
            raise KeyboardInterrupt
        save(self, round_index, state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", cut_off)
        assert pretrain(corpus, out) == 130
    assert_events_are_metrics(out, "round")
    assert [event.step for event in summaries(out)] == [1, 2, 3, 4]
    capfd.readouterr()
    assert cli.main(["watch", str(out), "--once"]) == 0
    said = capfd.readouterr().out
    assert "stopped, last line" in said
    assert f"round 4/{ROUNDS}" in said
    assert "left" not in said

    capfd.readouterr()
    assert pretrain(corpus, out) == 0
    reported = capfd.readouterr().out
    assert_events_are_metrics(out, "round")
    assert [event.step for event in summaries(out)] == list(range(1, ROUNDS + 1))
    capfd.readouterr()
    assert cli.main(["watch", str(out)]) == 0  # the output is no terminal: once is enough
    said = capfd.readouterr().out
    last = read_metrics(out / METRICS)[-1]
    assert "tiny, ten-clients, fedavg, 2 of 2 clients a round, seed 0" in said
    assert "done, last line" in said
    assert f"round {ROUNDS}/{ROUNDS}" in said
    assert f"{last['loss']:.3f}" in said
    # Both commands give the same number the same name.
    shown_loss = f"{last['heldout_contrastive']:.3f}"
    assert f"held-out contrastive {shown_loss}" in reported
    assert re.search(rf"held-out contrastive +{shown_loss}", said)
    assert f"{last['heldout_accuracy']:.3f}" in said
    assert (
        f"(chance {last['chance_accuracy']:.3f}, {last['heldout_accuracy_over_control']:.2f} x control)"
        in said
    )
    assert "clients: 2 in round 6; over the run 0 skipped, 0 late, 0 dropped, 0 too large" in said


def test_progress_metrics_and_clients_of_a_running_run(tmp_path):
    run = begun(tmp_path / "run")
    assert "starting" in shown(run.path)
    run.append(round_line(1, round_seconds=500.0))  # it compiled
    run.append(round_line(2, heldout_accuracy=0.2, chance_accuracy=0.01, evaluation_seconds=2.0))
    run.append(round_line(3, heldout_accuracy=0.25, chance_accuracy=0.02, evaluation_seconds=2.0))
    cost = {"audio_seconds": 90.0, "padded_share": 0.1, "device_rate_share": 0.31}
    run.append(round_line(4, late_clients=3, heldout_accuracy=None, **cost))
    said = shown(run.path)
    for words in (
        "running, last line 0 s ago",
        "tiny, hundred-clients, loss-weighted, 20 of 100 clients a round, fedadam, seed 7",
        "round 4/10",
        "7.3 s a round",  # (8 + 8 + 6) / 3
        "44 s left",
        "round 4: speech 90 s, 15 s of speech a second, padding 10 %, 31.0 % of the device's rate",
        "clients: 18 in round 4 (1 skipped, 3 late, 2 dropped); "
        "over the run 4 skipped, 3 late, 8 dropped, 0 too large",
        "health: watch: clients skipped",
    ):
        assert words in said
    rows = {row[:18].strip(): row[18:].split() for row in said.splitlines()}
    assert rows["loss"] == ["1.000", "-1.000", "█▆▃▁"]
    assert rows["held-out accuracy"] == ["0.250", "+0.050", "▁█", "(chance", "0.020)", "of", "round", "3"]
    assert "COLLAPSING" not in said
    for number in range(5, 11):
        run.append(round_line(number, code_perplexity=2.1))
    said = shown(run.path)
    assert "finishing" in said  # its report is not there yet
    assert "CODEBOOK COLLAPSING" in said
    assert "health: broken: codes have collapsed" in said
    run.close()
    assert "stopped" in shown(run.path)
    (run.path / "report.html").touch()
    assert "done" in shown(run.path)


def test_recognition_is_shown_in_updates_beside_its_best(tmp_path):
    run = begun(tmp_path / "run", RECOGNITION)
    run.append(validation(100, 0.4))
    assert "update 100 " in shown(run.path)  # how many there will be is not said yet
    run.pin("data.json", {"updates": 400})
    run.append(validation(200, 0.3))
    run.append(validation(300, 0.35))
    said = shown(run.path)
    run.close()
    assert "fine-tuning from runs/first, encoder frozen, characters, selected by cer, seed 7" in said
    assert "update 300/400" in said
    assert "0.1 s an update" in said
    assert "10 s left" in said
    row = next(row for row in said.splitlines() if row.startswith("validation WER"))
    assert row.split()[2:6] == ["35.0", "%", "+5.0", "%"]
    assert "(best 30.0 % at 200)" in row
    assert "updates skipped: 3 (gradients not finite)" in said


def test_several_runs_are_a_row_each(tmp_path):
    first, second = begun(tmp_path / "runs" / "one[b]"), begun(tmp_path / "runs" / "asr", RECOGNITION)
    first.append(round_line(1, heldout_accuracy=0.2, chance_accuracy=0.01))
    second.append(validation(100, 0.4))
    second.close()
    header, *rows = shown(first.path, second.path).splitlines()
    first.close()
    assert header.split()[:3] == ["run", "state", "at"]
    assert rows[0].split() == [
        "one[b]", "running", "round", "1/10", "6", "s", "4.000", "0.200", "(chance", "0.010)", "▅",
    ]  # fmt: skip
    assert rows[1].split()[:4] == ["asr", "stopped", "update", "100"]
    assert "40.0 % (best 40.0 % at 100)" in rows[1]
    assert rows[2:] == ["one[b]: watch: clients skipped"]


def test_a_line_that_is_half_written_waits_until_it_is_whole(tmp_path):
    run = begun(tmp_path / "run")
    run.append(round_line(1))
    watched = RunReader(run.path)
    whole = json.dumps(round_line(2)) + "\n"
    for cut in (10, len(whole) - 1):
        with run.metrics_path.open("a") as out:
            out.write(whole[:cut])
        assert [line["round"] for line in watched.read().lines] == [1]
        assert "round 1/10" in shown(run.path)
        os.truncate(run.metrics_path, run.metrics_path.stat().st_size - cut)
    with run.metrics_path.open("a") as out:
        out.write(whole[:10])
        out.flush()
        watched.read()
        out.write(whole[10:])
    assert [line["round"] for line in watched.read().lines] == [1, 2]
    run.close()


def test_a_tail_reads_what_is_new_and_begins_again_with_another_file(tmp_path):
    path = tmp_path / METRICS
    tail = JsonLines(path)
    assert tail.read() == []
    path.write_text('{"round": 1, "client_ids": ["a"]}\nno line\n[2]\n')
    assert tail.read() == [{"round": 1}]
    with path.open("a") as out:
        out.write('{"round": 2}\n{"rou')
    first = tail.read()[0]
    assert tail.read() == [{"round": 1}, {"round": 2}]
    assert tail.read()[0] is first  # not read again
    other = tmp_path / "other"
    other.write_text('{"round": 7}\n{"round": 8}\n{"round": 9}\n{"round": 10}\n{"round": 11}\n')
    other.replace(path)
    assert [line["round"] for line in tail.read()] == [7, 8, 9, 10, 11]
    path.write_text("")
    assert tail.read() == []


def test_it_follows_a_run_until_it_is_done(tmp_path, monkeypatch):
    run = begun(tmp_path / "run", SETTINGS | {"rounds": 2})
    slept = []

    def goes_on(seconds):
        slept.append(seconds)
        if len(slept) <= 2:
            run.append(round_line(len(slept)))
        elif len(slept) == 3:
            (run.path / "report.html").touch()
            run.close()
        else:
            raise AssertionError("it should have ended")

    monkeypatch.setattr(watch.time, "sleep", goes_on)
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    follow([RunReader(run.path)], console, 0.5)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert slept == [0.5, 0.5, 0.5]
    order = [said.index(words) for words in ("starting", "running", "finishing", "done")]
    assert order == sorted(order)


def test_ctrl_c_ends_the_view_alone(tmp_path, monkeypatch):
    run = begun(tmp_path / "run")

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupt)
    follow([RunReader(run.path)], Console(file=io.StringIO(), force_terminal=True), 1.0)
    run.close()


def test_looking_keeps_no_run_from_starting(tmp_path):
    run = begun(tmp_path / "run")
    assert in_use(run.path)
    run.close()
    assert not in_use(run.path)
    assert not in_use(tmp_path)
    with (run.path / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        threading.Timer(0.05, fcntl.flock, (lock.fileno(), fcntl.LOCK_UN)).start()
        RunFolder(run.path, SETTINGS, {}).close()


def test_what_is_no_run_is_one_line(tmp_path, capfd):
    run = begun(tmp_path / "runs" / "first")
    run.close()
    assert "no such folder" in fails(capfd, "watch", str(tmp_path / "nowhere"))
    assert "is a file: name the run folder" in fails(capfd, "watch", str(run.path / METRICS))
    line = fails(capfd, "watch", str(tmp_path / "runs"))
    assert "no config.json or metrics.jsonl" in line
    assert f"did you mean {run.path}" in line
    for seconds in ("0", "-1", "nan"):
        line = fails(capfd, "watch", str(run.path), "--every-seconds", seconds)
        assert "--every-seconds must be positive" in line
    assert "RUNS must be given, as in: w2v-jax watch" in fails(capfd, "watch")
    for name in (METRICS, "config.json"):
        copy = tmp_path / name.split(".")[0]
        shutil.copytree(run.path, copy)
        (copy / name).unlink()
        assert f"(no {name})" in fails(capfd, "watch", str(run.path), str(copy))
    config = tmp_path / "metrics" / "config.json"
    (tmp_path / "metrics" / METRICS).touch()
    config.write_text('{"settings": {"scale": 1}, "provenance": {}}')
    assert "was written by another command" in fails(capfd, "watch", str(config.parent))
    config.write_text("{}")
    assert "is not a config.json of a w2v-jax run" in fails(capfd, "watch", str(config.parent))


def test_a_folder_that_goes_away_is_said(tmp_path):
    run = begun(tmp_path / "run")
    watched = RunReader(run.path)
    run.close()
    shutil.rmtree(run.path)
    with pytest.raises(UserError, match="is gone"):
        watched.read()


def test_time_since_the_last_line_and_time_left_go_together(tmp_path):
    run = begun(tmp_path / "run")
    run.append(round_line(1))
    run.append(round_line(2))
    ago = time.time() - 30
    os.utime(run.metrics_path, (ago, ago))
    state = RunReader(run.path).read()
    run.close()
    assert state.silent_seconds == pytest.approx(30, abs=10)
    assert state.seconds_left == pytest.approx(8 * 6 - 30, abs=10)


def test_curves():
    assert drawn([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert drawn([1, 3, 5, 7, 100, 100], 3) == "▁▁█"  # means of two
    assert drawn([2.0, 2.0], 8) == "▅▅"
    assert drawn([], 8) == ""
    console = Console(file=io.StringIO(), width=5, legacy_windows=False)
    console.print(Sparkline(range(100)))
    assert console.file.getvalue() == "▁▃▅▆█\n"  # type: ignore[attr-defined]
    assert drawn([0, 1], 8, ASCII_LEVELS) == "_@"


def test_it_starts_without_jax(tmp_path):
    run = begun(tmp_path / "run")
    run.append(round_line(1))
    run.close()
    code = (
        "import sys; from experiments.cli.main import main; assert main(['watch', sys.argv[1]]) == 0; "
        "assert not {'jax', 'flax', 'numpy', 'tensorboardX', 'matplotlib'} & set(sys.modules)"
    )
    argv = [sys.executable, "-c", code, str(run.path)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "round 1/10" in done.stdout
