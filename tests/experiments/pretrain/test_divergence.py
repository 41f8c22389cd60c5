"""A centralised run that diverges keeps its last line and its last finite model."""

import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.doctor.diagnosis import diagnose
from experiments.doctor.reading import read
from experiments.pretrain import rounds
from experiments.pretrain.run import Pretraining, end_diverged
from experiments.runs.folder import read_metrics
from tests.configs import SMALL
from tests.experiments.cli.test_commands import fails
from tests.experiments.runs.test_tracking import Recorder
from w2v_jax.config import PRESETS
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.errors import UserError

EVALUATION = {"loss": 3.0, "contrastive": 2.5, "accuracy": 0.1, "chance_accuracy": 0.05}


def diverging(training, state, batches, *, sums, num_stretches, steps_per_stretch, **options):
    """Stand for fed.centralised.run: the first stretch ends in NaN."""
    spoilt = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, leaf.dtype), sums)
    after = state._replace(
        parameters=jax.tree.map(lambda leaf: leaf * np.nan, state.parameters), round_index=np.int32(1)
    )
    yield rounds.centralised.StretchResult(1, after, spoilt, steps_per_stretch, np.nan, False)
    pytest.fail("the run goes on")


def test_a_run_that_diverges_in_its_first_stretch_has_a_line_for_the_doctor(tmp_path, monkeypatch, capfd):
    corpus = write_corpus(
        tmp_path / "corpus", SyntheticConfig(speakers=3, clips_per_speaker=2, words=8, seed=4)
    )
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    monkeypatch.setattr(rounds.centralised, "run", diverging)
    monkeypatch.setattr(Pretraining, "evaluate", lambda *arguments, **named: dict(EVALUATION))
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    out = tmp_path / "run"
    said = fails(
        capfd, "pretrain", "--data", str(corpus), "--model", "tiny", "--preset", "centralised",
        "--rounds", "3", "--local-steps", "2", "--batch", "2", "--seconds", "0.6", "--heldout-speakers", "1",
        "--out", str(out), "--track", "wandb",
    )  # fmt: skip
    assert (
        "training diverged in stretch 1: the parameters are no longer finite; lower --learning-rate" in said
    )
    (line,) = read_metrics(out / "metrics.jsonl")
    assert (line["round"], line["updates"], line["loss"], line["update_norm"]) == (1, 2, None, None)
    assert "heldout_loss" not in line
    assert [step for step, _ in recorder.logged] == [1]
    diagnosis = diagnose(read(out))
    assert (diagnosis.verdict, diagnosis.findings[0].name) == ("broken", "loss not finite")


def test_the_model_before_the_stretch_is_kept():
    before = rounds.centralised.CentralState(*({"w": np.ones(2)},) * 3, np.int32(6))
    after = before._replace(parameters={"w": np.full(2, np.nan)}, round_index=np.int32(7))
    assert "checkpoints/ keeps the model after stretch 6" in rounds.divergence(7)
    assert "checkpoints" not in rounds.divergence(1)
    for newest, saved in ((5, [6]), (6, [])):
        kept = {}
        checkpoints = SimpleNamespace(latest=lambda n=newest: n, save=kept.__setitem__, close=lambda: None)
        log = rounds.RoundLog(int(after.round_index), before, {}, {}, diverged="training diverged")
        with pytest.raises(UserError, match=r"^training diverged$"):
            end_diverged(log, checkpoints)
        assert list(kept) == saved
        assert all(state is before for state in kept.values())
