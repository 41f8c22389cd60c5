"""Test how many clients are vmapped: candidates, the estimate of memory, and the choice."""

import jax
import jax.numpy as jnp
import optax
import pytest

from fed import chunks, server, simulation
from fed.aggregation import fedavg
from fed.algorithms.averaging import averaging
from fed.chunks import Trial
from fed.client import LocalTraining
from fed.cohort import Layout, RoundSettings
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


def measured(clients, memory_bytes=None, steps=3, block_steps=None):
    """Measure the toy; return the trials and the chunks that were built."""
    objective, optimizer = toy_objective(), optax.sgd(1.0)
    data = ToySource([steps] * clients)
    training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.05))
    state = server.init(objective, averaging(server_optimizer=optimizer), jax.random.key(0))
    batch, built = next(data.client_batches("client0", 0)), []

    def build(chunk):
        built.append(chunk)
        settings = RoundSettings(training, averaging(fedavg, optimizer), Layout(1, chunk))
        engine = simulation.build_engine(settings, state, batch, steps)
        return engine._replace(block_steps=block_steps or engine.block_steps)

    trials = chunks.measure(build, state, clients, steps, memory_bytes)
    jax.block_until_ready(state.parameters)  # it was not consumed
    return trials, built


def test_trials_start_one_by_one_and_with_the_largest_chunk():
    trials, built = measured(6)
    assert [trial.chunk for trial in trials] == built
    assert built[:2] == [1, 6]
    assert all(trial.cohort_seconds > 0 < trial.planned_bytes for trial in trials)


@pytest.mark.parametrize(
    ("seconds", "tried", "chosen"),
    [
        # Seconds of a group's block by chunk; a cohort of 8 is 8 / chunk groups.
        ({1: 1.0, 8: 2.0, 4: 1.5}, [1, 8, 4], 8),
        pytest.param({1: 1.0, 8: 6.0, 4: 1.0, 2: 0.9}, [1, 8, 4, 2], 4, marks=pytest.mark.slow),
        pytest.param({1: 1.0, 8: 9.0, 4: 5.0, 2: 1.2}, [1, 8, 4, 2], 2, marks=pytest.mark.slow),
        ({1: 1.0, 8: 9.0, 4: 5.0, 2: 2.5}, [1, 8, 4, 2], 1),
    ],
)
def test_smaller_chunks_are_tried_while_they_win(seconds, tried, chosen, monkeypatch):
    def block_seconds(compiled, totals, sent, objective_state, kept, block, *others):
        return seconds[len(block.valid)]

    monkeypatch.setattr(chunks, "_block_seconds", block_seconds)
    trials, built = measured(8)
    assert built == tried
    assert chunks.fastest(trials) == chosen
    for trial in trials:
        assert trial.cohort_seconds == pytest.approx(seconds[trial.chunk] * 8 / trial.chunk)


def test_a_block_of_part_of_a_round_counts_as_a_part(monkeypatch):
    monkeypatch.setattr(chunks, "_block_seconds", lambda *_: 1.0)
    trials, _ = measured(2, steps=6, block_steps=2)
    assert [(trial.chunk, trial.cohort_seconds) for trial in trials] == [(1, 6.0), (2, 3.0)]


def test_what_does_not_fit_is_not_run(monkeypatch):
    (alone, *_), _ = measured(6)
    # Enough for two clients by the estimate.
    _, built = measured(6, memory_bytes=2.5 * alone.planned_bytes / chunks.MEMORY_SHARE)
    assert built == [1, 2]
    trials, _ = measured(6, memory_bytes=1.0)
    assert [(trial.chunk, trial.cohort_seconds is None) for trial in trials] == [(1, False), (2, True)]
    assert chunks.fastest(trials) == 1

    def full(compiled, totals, sent, objective_state, kept, block, *others):
        if len(block.valid) > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return 1.0

    monkeypatch.setattr(chunks, "_block_seconds", full)
    trials, built = measured(6)
    assert built == [1, 6, 3, 2]
    assert chunks.fastest(trials) == 1
