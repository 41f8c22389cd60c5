"""How many clients to vmap: candidates, the estimate of memory, and what is chosen."""

import jax
import jax.numpy as jnp
import optax
import pytest

from fed import chunks, server, simulation
from fed.aggregation import fedavg
from fed.chunks import Trial
from fed.client import LocalTraining
from fed.cohort import Layout
from tests.fed.toy import ToySource, toy_objective


@pytest.mark.parametrize(
    ("clients", "expected"),
    [(1, [1]), (2, [2, 1]), (8, [8, 4, 2, 1]), (100, [100, 50, 25, 13, 7, 4, 2, 1]), (5, [5, 3, 2, 1])],
)
def test_candidates_fill_their_groups(clients, expected):
    assert chunks.candidates(clients) == expected
    for chunk in expected:
        groups = -(-clients // chunk)
        assert groups * chunk - clients < groups


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([Trial(1, 10, 4.0), Trial(8, 80, 1.0)], 8),
        ([Trial(1, 10, 1.0), Trial(8, 80, 4.0), Trial(4, 40, 2.0)], 1),
        # As fast as one by one but for a hair: that takes less memory.
        ([Trial(1, 10, 1.0), Trial(8, 80, 0.99)], 1),
        ([Trial(1, 10, 4.0), Trial(8, 80, None), Trial(4, 40, 2.0)], 4),
    ],
)
def test_the_fastest_is_chosen_and_of_equals_the_smallest(trials, expected):
    assert chunks.fastest(trials) == expected


def measured(clients, memory_bytes=None):
    """Trials of the toy, and the chunks that were built."""
    objective, optimizer = toy_objective(), optax.sgd(1.0)
    data = ToySource([3] * clients)
    training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.05))
    state = server.init(objective, optimizer, jax.random.key(0))
    batch, built = next(data.client_batches("client0", 0)), []

    def build(chunk):
        built.append(chunk)
        return simulation.build_engine(training, fedavg, optimizer, Layout(1, chunk), state, batch, 3)

    trials = chunks.measure(build, state, clients, memory_bytes)
    jax.block_until_ready(state.parameters)  # it was not consumed
    return trials, built


def test_trials_start_one_by_one_and_with_the_largest_chunk():
    trials, built = measured(6)
    assert [trial.chunk for trial in trials] == built
    assert built[:2] == [1, 6]
    assert all(trial.cohort_seconds > 0 < trial.planned_bytes for trial in trials)
    # One group of six, against six groups of one.
    assert chunks.fastest(trials) in built


def test_what_does_not_fit_is_not_run():
    (alone, *_), _ = measured(6)
    # Enough for two clients by the estimate.
    trials, built = measured(6, memory_bytes=2.5 * alone.planned_bytes / chunks.MEMORY_SHARE)
    assert built == [1, 2]
    trials, _ = measured(6, memory_bytes=1.0)
    assert [(trial.chunk, trial.cohort_seconds is None) for trial in trials] == [(1, False), (2, True)]
    assert chunks.fastest(trials) == 1
