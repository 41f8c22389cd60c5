"""The losses of clients: one window for all, and a band that holds the round's loss."""

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.pretrain import curves, report
from experiments.pretrain.clients import LocalWork
from experiments.pretrain.options import PretrainArguments
from experiments.pretrain.rounds import client_columns
from experiments.pretrain.settings import resolve
from experiments.report import figures
from fed import server, simulation
from fed.aggregation import loss_weighted
from fed.algorithms.averaging import averaging
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.compression.transfers import Transfers
from tests.fed.toy import ToySource, toy_objective
from w2v_jax.data.common_voice import Clip, ClipRow

STEPS = [8, 6, 8]
CLIPS = [
    Clip(row=ClipRow(client_id="a", path=f"{index}.wav"), samples=np.zeros(16_000, np.int16))
    for index in range(8)
]


@pytest.fixture(scope="module")
def result():
    """A round in which all clients learn so much that their last epoch is below the round's loss."""
    objective, data = toy_objective(), ToySource(STEPS, poison=(1,))
    run = simulation.Simulation(
        LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.03)),
        averaging(
            loss_weighted(1e-3), optax.sgd(1.0)
        ),  # so sharp that one client takes all: the other is accepted all the same
        data,
        lambda r: data.client_ids(),
        Layout(1, 1),
        0,
        max(STEPS),
    )
    state = server.init(objective, averaging(), jax.random.key(0))
    (result,) = simulation.run(run, state, 1)
    return result


def test_the_loss_of_a_round_lies_within_its_band(result):
    total, weight = result.sums["loss"]
    loss = float(total) / float(weight)
    assert result.skipped == ["client1"]
    accepted = [index for index, name in enumerate(result.clients) if name != "client1"]
    assert sorted(result.weights[accepted]) == [0.0, 1.0]
    assert max(result.losses[accepted]) < loss  # the window of the weights would not hold it
    plans = [ToySource(STEPS).plan(name, 0) for name in result.clients]
    columns = client_columns(result, plans, Transfers(10, 7))
    assert (columns["bytes_down"], columns["bytes_up"]) == (30, 21)
    assert columns["client_loss_min"] < loss < columns["client_loss_max"]
    np.testing.assert_array_equal(columns["client_losses"], result.losses)


def test_clients_of_few_and_of_many_clips_are_compared_over_the_same_steps():
    """Their epochs end at different steps, so that an epoch's window would favour those of few clips."""
    windows = {}
    for name, options in {"steps": {"local_steps": 6}, "epochs": {"local_epochs": 2}}.items():
        settings = resolve(PretrainArguments(batch_size=2, **options))
        work = LocalWork(
            batch_size=2,
            crop_samples=1,
            steps=settings["local_steps"],
            epochs=settings["local_epochs"],
            loss_window=settings["loss_window"],
        )
        plans = [work.plan(CLIPS[:clips]) for clips in (1, 8)]
        windows[name] = [(plan.loss_from_step, plan.num_steps) for plan in plans]
    assert windows == {"steps": [(0, 6), (0, 6)], "epochs": [(1, 2), (4, 8)]}


UNTRAINED = dict.fromkeys(
    ("contrastive", "accuracy", "shuffled_accuracy", "chance_accuracy", "code_perplexity"), 1.0
)


def drawn(tmp_path, monkeypatch, settings):
    """Write a run of three rounds, draw its curves, and return the axes."""
    lines = [
        {"round": number, "loss": 5.0 - number, "contrastive": 4.0, "code_perplexity": 9.0,
         "update_norm": 1.0, "client_loss_min": 4.0 - number, "client_loss_max": 4.5 - number}
        for number in (1, 2, 3)
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "untrained.json").write_text(json.dumps(UNTRAINED))
    (tmp_path / "config.json").write_text(json.dumps({"settings": settings, "provenance": {}}))
    kept = []

    @contextlib.contextmanager
    def picture(*args, **settings):
        with figures.picture(*args, **settings) as axes:
            yield axes
            kept.append(axes.flat)

    monkeypatch.setattr(curves, "picture", picture)
    curves.draw_run(tmp_path, tmp_path / "curves.png")
    return kept[0]


def test_axes_of_rounds_have_ticks_at_whole_rounds(tmp_path, monkeypatch):
    for axis in drawn(tmp_path, monkeypatch, {"loss_window": "round"}):
        assert all(tick == round(tick) for tick in axis.get_xticks())


@pytest.mark.parametrize("new", [True, False])
def test_the_mean_is_drawn_where_the_band_is_of_the_same_steps(tmp_path, monkeypatch, new):
    settings = {"loss_window": "round"} if new else {}
    *_, band = drawn(tmp_path, monkeypatch, settings)
    assert len(band.collections) == 1
    assert len(band.lines) == new  # an older run has no mean outside of its band
    said = report._losses({"preset": "ten-clients", "aggregation": "fedavg"} | settings)
    assert ("which lies within it" in said) == new
    assert f"is over {report.LOSS_WINDOWS['round' if new else 'last-epoch']}." in said
    assert report._losses({"preset": "centralised"}) == ""
