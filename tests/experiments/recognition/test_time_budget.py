"""finetune --minutes: the pace that is measured, the updates that fit, and a run that is stopped in time."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.cli import main as cli
from experiments.costs.rate_share import PeakRate, RateShare
from experiments.options.errors import UsageError
from experiments.process.files import read_json
from experiments.recognition import time_budget
from experiments.recognition.finetune import FinetuneArguments, resolve
from experiments.recognition.recipes import FINE_TUNING
from experiments.recognition.run import Finetuning
from experiments.recognition.time_budget import Pace, updates_that_fit
from experiments.runs.folder import read_metrics
from tests.experiments.recognition.test_finetune import RUN, corpus
from w2v_jax.errors import UserError
from w2v_jax.recognition.training import TrainingState, tri_stage

__all__ = ["corpus"]


def test_updates_and_validations_fit_into_nine_tenths_of_the_minutes():
    pace = Pace(1.0, 10.0, 30.0)
    # 270 updates and 27 validations take 540 s.
    assert updates_that_fit(10, pace, lambda updates: 10) == 270
    # A validation in the middle and one at the end: 520 + 20 s.
    assert updates_that_fit(10, pace, lambda updates: -(-updates // 2)) == 520
    with pytest.raises(
        UserError, match=r"--minutes 0\.2 is too short: an update takes 1 s and a validation 10 s; give at"
    ):
        updates_that_fit(0.2, pace, lambda updates: 10)


def test_the_pace_leaves_compiling_out_and_weighs_shapes_by_their_batches():
    class Batches(list):
        steps_per_epoch = 4

    now, compiled = [0.0], set()

    def work(name, seconds):
        now[0] += seconds + 100 * (name not in compiled)
        compiled.add(name)
        return np.zeros(1)

    short, long = (np.zeros((2, 10)),), (np.zeros((2, 40)),)
    pace = time_budget.measure(
        Batches([short, long, short, short]),
        lambda batch: work(batch[0].shape, batch[0].shape[1]),
        lambda: work("validation", 7.0),
        clock=lambda: now[0],
    )
    assert pace == (pytest.approx((3 * 10 + 40) / 4), 7.0, 300 + 2 * (10 + 40 + 7))


def test_minutes_choose_a_schedule_of_the_runs_length():
    assert resolve(FinetuneArguments())["schedule"] == "newbob"
    held = resolve(FinetuneArguments(minutes=5.0))
    assert (held["minutes"], held["head_optimizer"], held["schedule"]) == (5.0, "adam", "tri-stage")
    assert resolve(FinetuneArguments(minutes=5.0, schedule="newbob"))["schedule"] == "newbob"
    with pytest.raises(UsageError, match="--minutes and --updates both say how long"):
        resolve(FinetuneArguments(minutes=5.0, updates=10))


class Over:
    """A budget that is over when it is asked for the n-th time."""

    def __init__(self, asked: int):
        self.left = asked

    def passed(self) -> bool:
        self.left -= 1
        return self.left == 0


def test_training_stops_at_a_validation_when_the_minutes_are_over(monkeypatch):
    """A run of eight updates, with a validation every four, stops and validates once its time is over."""

    run = object.__new__(Finetuning)
    run.settings = resolve(FinetuneArguments(minutes=1.0)) | {"freeze": "encoder"}
    batch = SimpleNamespace(waveform=np.zeros((1, 16_000)))
    run.recipe, run.train_batches, run.steps_per_epoch = FINE_TUNING["tiny"], [batch] * 8, 8
    run.updates, run.evaluate_every = 8, 4
    run.update = lambda state, batch, key, rates: (state, {"skipped": np.zeros(2)})
    run.task = SimpleNamespace(
        objective=SimpleNamespace(summarise=lambda sums: {"audio_seconds": 0.75}),
        validate=lambda state: {"loss": 1.0},
    )
    run.rate_share = RateShare(lambda: pytest.fail("traced"), PeakRate(None, None))
    for asked, expected in ((3, [3]), (4, [4]), (5, [4, 5]), (-1, [4, 8])):
        monkeypatch.setattr(time_budget, "Deadline", lambda minutes, asked=asked: Over(asked))
        found = run._train(TrainingState({}, {}, ()), jax.random.key(0), 0, [])
        lines = [line for line, _, _ in found]
        assert [line["update"] for line in lines] == expected
        # Each line has the audio and the slots of the updates since the one before.
        updates = np.diff([0, *expected])
        assert [line["padded_share"] for line in lines] == [1 - 0.75 / count for count in updates]


@pytest.mark.slow
def test_a_run_of_minutes_is_stopped_in_time_and_continues_its_plan(corpus, tmp_path, monkeypatch, capfd):
    out = tmp_path / "run"
    command = ["finetune", "--data", str(corpus), "--out", str(out), *RUN, "--features", "log-mel"]
    command += ["--no-augment", "--minutes", "0.3"]
    command[command.index("--head-blocks") + 1] = "0"
    del command[(width := command.index("--head-width")) : width + 2]

    def measured(update_seconds):
        def measure(batches, update, validate):
            update(batches[0])
            update(batches[0])  # the state is not given away
            return Pace(update_seconds, 2.0, 61.0)

        return measure

    monkeypatch.setattr(time_budget, "measure", measured(1.0))
    monkeypatch.setattr(time_budget, "Deadline", lambda minutes: Over(3))
    assert cli.main(command) == 0
    said = capfd.readouterr().out
    # 8 updates and 4 validations take 16 of the 16.2 s that are planned.
    assert "--minutes 0.3: 8 updates fit; an update takes 1 s and a validation 2 s." in said
    assert "Compiling and measuring took 1 min 1 s" in said
    assert "stopped after update 3 of 8: the 0.3 minutes are over" in said
    assert [line["update"] for line in read_metrics(out / "metrics.jsonl")] == [2, 3]
    assert read_json(out / "results.json")["updates"] == 3
    assert read_json(out / "data.json")["updates"] == 8

    monkeypatch.setattr(time_budget, "measure", measured(0.1))
    monkeypatch.setattr(time_budget, "Deadline", lambda minutes: Over(-1))
    assert cli.main(command) == 0
    said = capfd.readouterr().out
    assert "the run has 8 updates, as planned when it began" in said
    assert "continuing after update 3" in said
    lines = read_metrics(out / "metrics.jsonl")
    assert [line["update"] for line in lines] == [2, 3, 4, 6, 8]
    for line in lines:
        assert line["head_learning_rate"] == pytest.approx(0.3 * tri_stage(line["update"] - 1, 8))
    assert read_json(out / "results.json")["updates"] == 8
