"""Settings of a federated run, without a run: privacy under dropout, weights, warnings."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.federated.warnings import fruitless
from experiments.pretrain import federation, recipes
from experiments.pretrain.options import PretrainArguments
from experiments.pretrain.settings import Settings, resolve
from fed import simulation
from fed.privacy import accounting
from fed.protocols import ClientPlan

OPTIONS = PretrainArguments(
    preset="hundred-clients", clients_per_round=20, client_dropout=0.5, rounds=5, aggregation="uniform",
    dp_clip_norm=0.5, dp_noise_multiplier=1.0, dp_delta=1e-4,
)  # fmt: skip
SETTINGS = Settings(**resolve(OPTIONS))
NAMES = [f"client{index}" for index in range(100)]


class Source:
    """A population of clients with one step each."""

    def client_ids(self):
        return NAMES

    def plan(self, client_id, round_index):
        return ClientPlan(1, 0, 1.0)

    def client_batches(self, client_id, round_index):
        return iter(())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("per_round", [20, 100])
def test_a_private_sum_is_divided_by_the_clients_that_answer_on_average(dropout, per_round):
    """The mean step is then that of all clients, whatever drops out."""
    settings = replace(SETTINGS, client_dropout=dropout, clients_per_round=per_round)
    private = federation.privacy(settings, len(NAMES), ())
    assert private is not None
    sampler, attend = federation.sampler(settings, NAMES), federation.attend(settings, Source())
    answered = [len(attend(index, sampler(index)).present) for index in range(150)]
    assert np.mean(answered) / private.expected_clients == pytest.approx(1.0, abs=0.08)


def test_the_privacy_spent_is_that_of_clients_that_are_asked_and_answer():
    private = federation.privacy(SETTINGS, 100, ())
    assert private is not None
    spent = federation.epsilon_spent(SETTINGS, private, 100, 5)
    assert spent == accounting.epsilon(1.0, sampling_probability=0.1, rounds=5, delta=1e-4)
    everyone = replace(SETTINGS, client_dropout=0.0)
    assert spent < 0.8 * federation.epsilon_spent(everyone, private, 100, 5)


@pytest.mark.slow
def test_noise_for_an_epsilon_is_found_for_clients_that_are_asked_and_answer():
    settings = replace(SETTINGS, dp_noise_multiplier=None, dp_epsilon=3.0)
    private = federation.privacy(settings, 100, ())
    assert private is not None
    assert 2.97 < federation.epsilon_spent(settings, private, 100, 5) <= 3.0


def test_without_dropout_the_divisor_is_the_cohort_exactly():
    private = federation.privacy(replace(SETTINGS, client_dropout=0.0), 100, ())
    assert private is not None
    assert private.expected_clients == 20.0


def test_a_population_smaller_than_the_cohort_is_counted_as_it_is():
    """--partition speakers: nobody knows before how many there are."""
    settings = replace(SETTINGS, client_dropout=0.0)
    private = federation.privacy(settings, 7, ())
    assert private is not None
    assert private.expected_clients == 7.0
    spent = federation.epsilon_spent(settings, private, 7, 2)
    assert spent == accounting.epsilon(1.0, sampling_probability=1.0, rounds=2, delta=1e-4)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([0.25] * 4, 4.0), ([0.05] * 4, 4.0), ([1.0, 0.0], 1.0), ([0.0, 0.0], 0.0), ([], 0.0)],
)
def test_effective_clients_do_not_depend_on_the_sum_of_weights(weights, expected):
    assert federation.effective_clients(np.array(weights)) == pytest.approx(expected)


def result(clients, not_finite=0, too_large=0, nothing=0):
    names = NAMES[:clients]
    return simulation.RoundResult(
        round_index=3, server=None, sums=None, clients=names, losses=np.zeros(clients),  # type: ignore
        round_losses=np.zeros(clients), weights=np.zeros(clients),
        skipped=names[: not_finite + too_large + nothing],
        not_finite=names[:not_finite],
        too_large=names[not_finite : not_finite + too_large], dropped=[],
        late=[], clipped_share=0.0, update_norms=np.zeros(clients), mean_update_norm=0.0, steps=0,
        step_slots=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("weights", "share"),
    [([0.5, 0.3, 0.2], 0.5), ([0.1, 0.1, 0.0], 0.5), ([0.0, 0.2, 0.0], 0.0), ([0.0] * 3, 0.0), ([], 0.0)],
)
def test_the_share_of_some_clients_is_known_in_every_round(weights, share):
    """It is also known under privacy, where weights do not sum to one, and where nobody answered."""
    held = result(len(weights))._replace(weights=np.array(weights))
    assert federation.share_of([NAMES[0], "absent"], held) == pytest.approx(share)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"not_finite": 4}, "(4 not finite); lower --learning-rate if this goes on"),
        ({"not_finite": 1, "too_large": 2, "nothing": 1}, "(1 not finite, 2 too large, 1 without anything"),
        ({"too_large": 4}, "(4 too large)"),
        ({"nothing": 4}, "(4 without anything learnt)"),
    ],
)
def test_a_round_without_any_update_is_said_with_its_reasons(given, why):
    said = fruitless(result(4, **given))
    assert said is not None
    assert said.startswith("warning: round 3 used no client's update")
    assert why in said


@pytest.mark.parametrize("given", [{"not_finite": 3}, {"too_large": 1}, {}])
def test_a_round_with_an_update_needs_no_warning(given):
    assert fruitless(result(4, **given)) is None
    assert fruitless(result(0)) is None


def test_only_privacy_under_iid_needs_a_caveat():
    assert "no speaker is protected" in str(recipes.privacy_caveat(vars(replace(SETTINGS, partition="iid"))))
    assert recipes.privacy_caveat(vars(SETTINGS)) is None
    assert recipes.privacy_caveat(vars(replace(SETTINGS, partition="iid", dp_clip_norm=None))) is None
    # Settings of runs of before there was privacy.
    assert recipes.privacy_caveat({"partition": "iid"}) is None
