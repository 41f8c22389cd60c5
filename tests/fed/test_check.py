"""Broken contracts of an objective, a source, an algorithm or an optimizer give one clear line each."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import server, simulation
from fed.algorithm import Algorithm
from fed.algorithms import ALGORITHMS
from fed.algorithms.robust import median
from fed.algorithms.scaffold import scaffold
from fed.check import check
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.protocols import FederationError
from tests.fed.algorithms.regression import Objective, Source, simulate
from tests.fed.toy import ToySource, toy_objective


@pytest.mark.parametrize("name", ["fedavg", "scaffold", "median"])
def test_what_works_has_no_complaint(name):
    assert check(Objective(), Source(), ALGORITHMS[name](), optax.scale_by_adam()) == []
    if name == "fedavg":
        assert check(toy_objective(), ToySource([2, 3])) == []


class WithoutLoss(Objective):
    @staticmethod
    def value_and_grad(*arguments):
        gradients, state, sums = Objective.value_and_grad(*arguments)
        return gradients, state, {"error": sums["loss"]}


class ValueFirst(Objective):
    @staticmethod
    def value_and_grad(*arguments):
        gradients, _, sums = Objective.value_and_grad(*arguments)
        return sums["loss"][0], gradients


class SummedGradients(Objective):
    """The gradient of the summed loss beside the mean loss."""

    @staticmethod
    def value_and_grad(*arguments):
        gradients, state, sums = Objective.value_and_grad(*arguments)
        return jax.tree.map(lambda leaf: 4 * leaf, gradients), state, sums


class WithoutState(Objective):
    @staticmethod
    def init(key):
        return Objective.init(key)[0]


class Counting(Objective):
    @staticmethod
    def init(key):
        parameters, state = Objective.init(key)
        return parameters | {"count": jnp.int32(0)}, state


class ShortClient(Source):
    def client_batches(self, client_id, round_index):
        yield next(super().client_batches(client_id, round_index))


class Ragged(Source):
    def client_batches(self, client_id, round_index):
        for index, batch in enumerate(super().client_batches(client_id, round_index)):
            yield batch if index == 0 else {name: leaf[:2] for name, leaf in batch.items()}


class Unrepeatable(Objective):
    @staticmethod
    def value_and_grad(*arguments):
        gradients, state, sums = Objective.value_and_grad(*arguments)
        noise = np.float32(np.random.default_rng().normal())
        return jax.tree.map(lambda leaf: leaf + noise, gradients), state, sums


def broken_message(trained):
    return jax.tree.map(lambda leaf: leaf / 0.0, trained.update), ()


def failing_combine(messages, log_weights):
    raise ZeroDivisionError("no clients")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((WithoutLoss(), Source()), 'sums have no "loss" (they are error): return {"loss": (total, weight)}'),
        ((ValueFirst(), Source()), "returns a tuple of 2: it has to return (gradients, state, sums)"),
        ((SummedGradients(), Source()), "the gradients are not those of the mean loss in sums"),
        ((WithoutState(), Source()), "objective.init returns a dict: it has to return (parameters, state)"),
        ((Counting(), Source()), "parameter count is int32: parameters have to be floats"),
        ((Unrepeatable(), Source()), "two results for the same arguments: take all chance from its key"),
        ((Objective(), ShortClient()), "client client0 planned 2 steps and gave 1 batches"),
        ((Objective(), Ragged()), "batches of client client0 have other shapes than the first one"),
        ((Objective(), Source(steps=(), weights=())), "source.client_ids() is empty: there are no clients"),
        ((Objective(), Source(weights=(0.0,) * 5)), "client client0 has steps and weight 0.0"),
        ((object(), Source()), "the objective has no function init"),
        ((Objective(), Source(), scaffold), "the algorithm is a function: it has to be a fed.algorithm"),
        ((Objective(), Source(), Algorithm(), optax.sgd(0.1)), "it has its learning rate already"),
        ((Objective(), Source(), Algorithm(message=broken_message)), "no client's update counted in a round"),
        (
            (Objective(), Source(), median()._replace(combine=failing_combine)),
            "a round fails: ZeroDivisionError: no clients",
        ),
    ],
)  # fmt: skip
def test_a_broken_contract_is_named_in_a_line(arguments, complaint):
    found = check(*arguments)
    assert len(found) == 1, found
    assert complaint in found[0]
    assert "\n" not in found[0]


def test_a_run_names_a_loss_that_is_missing():
    data = Source()
    run = simulation.Simulation(
        LocalTraining(WithoutLoss(), optax.identity(), lambda step: np.float32(0.1)),
        Algorithm(), data, lambda index: data.client_ids(), Layout(1, 1), 0, 5,
    )  # fmt: skip
    state = server.init(Objective(), Algorithm(), jax.random.key(0))
    with pytest.raises(FederationError, match=r'sums\["loss"\]'):
        next(simulation.run(run, state, 1))


def test_a_round_that_taught_nothing_warns():
    class Broken(Source):
        def client_batches(self, client_id, round_index):
            for batch in super().client_batches(client_id, round_index):
                yield batch | {"y": batch["y"] * np.float32(np.nan)}

    with pytest.warns(UserWarning, match=r"round 1 used no client's update \(2 not finite\)"):
        simulate(Algorithm(), [[0, 1]], Broken())
