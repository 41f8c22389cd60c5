"""--track: what a tracking library is told, held against a module that records its calls."""

import re
import sys
from types import SimpleNamespace

import pytest

from experiments.options.errors import UsageError
from experiments.process.files import read_json
from experiments.runs import tracking
from experiments.runs.folder import RunFolder, read_metrics
from experiments.runs.metric_columns import scalars
from tests.experiments.cli.test_commands import fails
from tests.experiments.runs.test_events import line
from w2v_jax.errors import UserError

SETTINGS = {"rounds": 9, "learning_rate": 0.5}


class Recorder:
    """Stands for trackio or wandb."""

    def __init__(self):
        self.inits, self.logged, self.finished = [], [], 0
        self.broken: Exception | None = None

    def init(self, **options):
        self.inits.append(options)
        if self.broken is not None:
            raise self.broken
        return SimpleNamespace(log=self._log)

    def _log(self, values, step):
        if self.broken is not None:
            raise self.broken
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture(params=["trackio", "wandb"])
def library(request):
    return request.param


@pytest.fixture
def recorder(library, monkeypatch):
    held = Recorder()
    monkeypatch.setitem(sys.modules, library, held)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.delenv("TRACKIO_PROJECT", raising=False)
    return held


def opened(path, library, **options):
    run = RunFolder(path / "run", SETTINGS, {}, track=library, **options)
    run.begin()
    return run


def test_a_tracked_run_gets_the_scalars_of_tensorboard(tmp_path, library, recorder, capsys):
    run = opened(tmp_path, library)
    run.rewind(0)
    for number in (1, 2):
        run.append(line(number, clients=3, client_losses=[1.0, 2.0], heldout_loss=float("nan")))
    run.append({"round": 1, "clients": []}, "diagnostics.jsonl")
    run.close()
    lines = read_metrics(run.metrics_path)
    assert recorder.logged == [(held["round"], scalars(held, "round")) for held in lines]
    assert recorder.logged[0][1]["train/loss"] == 3.9
    assert recorder.finished == 1
    (options,) = recorder.inits
    assert (options["project"], options["config"], options["resume"]) == ("w2v-jax", SETTINGS, "allow")
    held = read_json(run.path / "tracking.json")[library]
    assert held == {"project": "w2v-jax", "id": options["id" if library == "wandb" else "name"], "last": 2}
    assert f"tracked by {library}: project w2v-jax, run {held['id']}" in capsys.readouterr().out


def test_a_run_that_continues_is_one_tracked_run_and_sends_each_line_once(
    tmp_path, library, recorder, monkeypatch
):
    run = opened(tmp_path, None)
    run.rewind(0)
    run.append(line(1))  # before --track was given
    run.close()
    for done, numbers in ((1, (2, 3, 4)), (2, (3, 4, 5))):
        run = opened(tmp_path, library)
        run.rewind(done)  # the second time, rounds 3 and 4 are computed again
        for number in numbers:
            run.append(line(number))
        run.close()
        monkeypatch.setenv(f"{library.upper()}_PROJECT", "another")  # the run stays where it began
    assert [step for step, _ in recorder.logged] == [1, 2, 3, 4, 5]
    first, second = recorder.inits
    assert first == second
    assert first["project"] == "w2v-jax"


def test_ids_hold_only_characters_that_libraries_take(tmp_path, library, recorder):
    run = RunFolder(tmp_path / "my run: 50 % #2", SETTINGS, {}, track=library)
    run.begin()
    run.rewind(0)
    run.close()
    held = read_json(run.path / "tracking.json")[library]["id"]
    assert re.fullmatch(r"my-run-50-2-[0-9a-f]{8}", held)


def test_a_project_can_be_named(tmp_path, library, recorder, monkeypatch):
    monkeypatch.setenv(f"{library.upper()}_PROJECT", "speech")
    run = opened(tmp_path, library)
    run.rewind(0)
    run.close()
    assert recorder.inits[0]["project"] == "speech"


def test_a_library_that_refuses_to_begin_ends_in_one_line(tmp_path, library, recorder):
    recorder.broken = RuntimeError("api_key not configured\nsee https://example.org")
    run = opened(tmp_path, library)
    with pytest.raises(
        UserError, match=rf"^--track {library} cannot begin: RuntimeError: api_key not configured$"
    ):
        run.rewind(0)
    run.close()


def test_training_goes_on_when_a_library_fails_and_the_lines_are_sent_later(
    tmp_path, library, recorder, capsys
):
    run = opened(tmp_path, library)
    run.rewind(0)
    run.append(line(1))
    recorder.broken = OSError("no route")
    run.append(line(2))
    recorder.broken = None
    run.append(line(3))
    run.close()
    told = capsys.readouterr().out
    assert told.count("training goes on without it: OSError: no route") == 1
    assert f"--track {library}: lines not sent: 2" in told
    assert [held["round"] for held in read_metrics(run.metrics_path)] == [1, 2, 3]
    run = opened(tmp_path, library)
    run.rewind(3)
    run.close()
    assert [step for step, _ in recorder.logged] == [1, 2, 3]


def test_a_process_that_only_reads_tracks_nothing(tmp_path, library, recorder):
    run = opened(tmp_path, library, writes=False)
    run.rewind(0)
    run.append(line(1))
    run.close()
    assert not recorder.inits


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_library_that_is_not_installed_is_named_before_anything_else(
    command, library, tmp_path, monkeypatch, capfd
):
    monkeypatch.setitem(sys.modules, library, None)  # importing it fails
    with pytest.raises(UsageError, match=f"--track {library} needs .*: pip install {library}$"):
        tracking.check_installed(library)
    out = tmp_path / "run"
    said = fails(capfd, command, "--track", library, "--out", str(out))
    assert said.endswith(f"pip install {library}")
    assert not out.exists()
    tracking.check_installed(None)


def test_track_is_no_setting_of_a_run():
    from experiments.pretrain.options import PretrainArguments
    from experiments.pretrain.settings import resolve
    from experiments.recognition import finetune

    assert resolve(PretrainArguments(track="wandb")) == resolve(PretrainArguments())
    tuned = finetune.FinetuneArguments(track="wandb")
    assert finetune.resolve(tuned) == finetune.resolve(finetune.FinetuneArguments())
