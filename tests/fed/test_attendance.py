"""Test which clients answer, drop out or are late, and how rounds go on without them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import attendance, sampling, server, simulation
from fed.aggregation import fedavg, loss_weighted
from fed.algorithm import Server
from fed.algorithms.averaging import averaging, fedprox
from fed.attendance import Faults, attend, slowness
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.keys import round_key, step_key
from tests.fed.toy import ToySource, toy_objective

NAMES = [f"client{i}" for i in range(200)]
STEPS = dict.fromkeys(NAMES, 10)


def test_nothing_goes_wrong_by_default():
    found = attend(NAMES, STEPS, Faults(), seed=0, round_index=0)
    assert found == attendance.all_answer(0, NAMES) == attendance.Attendance(NAMES, [], [])


def test_everyone_asked_is_in_one_list_and_order_decides_nothing():
    faults = Faults(dropout=0.2, speed_spread=0.5, deadline_steps=12, wanted=90)
    one = attend(NAMES, STEPS, faults, seed=1, round_index=3)
    other = attend(NAMES[::-1], STEPS, faults, seed=1, round_index=3)
    assert sorted([*one.present, *one.dropped, *one.late]) == sorted(NAMES)
    for mine, theirs in zip(one, other, strict=True):
        assert sorted(mine) == sorted(theirs)
    assert len(one.present) == 90


def test_clients_drop_out_at_their_rate_anew_each_round():
    dropped = [attend(NAMES, STEPS, Faults(dropout=0.3), seed=0, round_index=r).dropped for r in range(20)]
    assert np.mean([len(d) for d in dropped]) == pytest.approx(60, abs=5)
    assert dropped[0] != dropped[1]


def test_slow_clients_are_late_and_stay_slow():
    faults = Faults(speed_spread=0.7, deadline_steps=15)
    late = attend(NAMES, STEPS, faults, seed=0, round_index=0).late
    assert late == attend(NAMES, STEPS, faults, seed=0, round_index=1).late
    assert set(late) == {name for name in NAMES if 10 * slowness(name, faults, 0) > 15}
    assert np.median([slowness(name, faults, 0) for name in NAMES]) == pytest.approx(1.0, abs=0.15)
    more = STEPS | {NAMES[0]: 1000}
    assert NAMES[0] in attend(NAMES, more, faults, seed=0, round_index=0).late


def test_the_earliest_answers_are_taken():
    faults = Faults(speed_spread=0.7, wanted=20)
    found = attend(NAMES, STEPS, faults, seed=0, round_index=0)
    slowest_taken = max(slowness(name, faults, 0) for name in found.present)
    assert all(slowness(name, faults, 0) >= slowest_taken for name in found.late)


def simulate(attend_round, rounds=2, rule=fedavg, optimizer=None, **options):
    objective, data = toy_objective(), ToySource([5, 3, 1, 4], **options.pop("source", {}))
    training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.05))
    optimizer = optimizer or optax.sgd(1.0)
    made = simulation.Simulation(
        training, averaging(rule, optimizer), data, sampling.everyone(data.client_ids()), Layout(1, 2), 3, 5,
        attend=attend_round, **options,
    )  # fmt: skip
    state = server.init(objective, averaging(server_optimizer=optimizer), jax.random.key(0))
    return [r._replace(server=jax.device_get(r.server)) for r in simulation.run(made, state, rounds)]


def test_a_round_is_that_of_the_clients_that_answered():
    def without(round_index, asked):
        return attendance.Attendance([asked[1], asked[3]], [asked[0]], [asked[2]])

    (result,) = simulate(without, rounds=1)
    assert sorted(result.clients) == ["client1", "client3"]
    assert (result.dropped, result.late) == (["client0"], ["client2"])
    assert result.weights.sum() == pytest.approx(1.0)


def test_a_round_that_nobody_answers_changes_nothing_but_its_number():
    def nobody_every_other_time(round_index, asked):
        nobody = attendance.Attendance([], list(asked), [])
        return attendance.all_answer(0, asked) if round_index % 2 else nobody

    momentum = optax.sgd(1.0, momentum=0.9)
    first, second, third, fourth = simulate(nobody_every_other_time, rounds=4, optimizer=momentum)
    assert (first.clients, first.steps, len(first.weights)) == ([], 0, 0)
    assert len(first.dropped) == 4
    # By now there is momentum, and it stands still.
    jax.tree.map(np.testing.assert_array_equal, third.server.parameters, second.server.parameters)
    jax.tree.map(np.testing.assert_array_equal, third.server.optimizer_state, second.server.optimizer_state)
    assert int(third.server.round_index) == 3
    for before, after in ((first, second), (third, fourth)):
        assert np.isfinite(float(optax.tree.norm(after.server.parameters)))
        changed = jax.tree.map(
            lambda a, b: not np.array_equal(a, b), after.server.parameters, before.server.parameters
        )
        assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize(
    "rule", [fedavg, pytest.param(loss_weighted(), marks=pytest.mark.slow)], ids=["fedavg", "loss-weighted"]
)
def test_updates_that_are_too_large_are_left_out_and_named(rule):
    (free,) = simulate(attendance.all_answer, rounds=1, rule=rule)
    limit = float(np.sort(free.update_norms)[-2]) * 1.001
    (result,) = simulate(attendance.all_answer, rounds=1, rule=rule, max_update_norm=limit)
    largest = free.clients[int(np.argmax(free.update_norms))]
    assert result.too_large == result.skipped == [largest]
    assert result.weights[result.clients.index(largest)] == 0.0

    def without(round_index, asked):
        return attendance.Attendance([name for name in asked if name != largest], [], [])

    (expected,) = simulate(without, rounds=1, rule=rule)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        result.server.parameters,
        expected.server.parameters,
    )


def test_updates_that_are_not_finite_are_told_from_those_that_are_too_large():
    (result,) = simulate(attendance.all_answer, rounds=1, source={"poison": (1,)}, max_update_norm=1e9)
    assert result.skipped == ["client1"]
    assert result.too_large == []


@pytest.mark.slow
def test_fedprox_pulls_towards_the_rounds_start():
    from fed import client

    objective, data = toy_objective(), ToySource([6])
    parameters, state = objective.init(jax.random.key(0))
    batches = list(data.client_batches("client0", 0))
    block = client.Block(
        jax.tree.map(lambda *x: np.stack(x), *batches),
        np.ones(6, bool), np.ones(6, bool), np.arange(6, dtype=np.int32),
    )  # fmt: skip
    sums = simulation.abstract_sums(objective, parameters, state, batches[0])
    moved = []
    for proximal in (0.0, 1.0, 10.0):
        training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.02))
        algorithm, sent = fedprox(proximal), Server(parameters, ())
        start = client.start(training, algorithm, sent, state, (), sums)
        end = client.train_block(
            training, algorithm, start, block, np.uint32(1), jax.random.key(0), np.int32(0), sent
        )
        moved.append(float(optax.tree.norm(jax.tree.map(jnp.subtract, end.parameters, parameters))))
    assert moved[0] > moved[1] > moved[2]


def test_fedprox_is_gradient_descent_on_the_loss_and_half_mu_times_the_squared_distance():
    from fed import client

    objective, data = toy_objective(), ToySource([2])
    initial, state = objective.init(jax.random.key(0))
    batches = list(data.client_batches("client0", 0))
    key, number, rate, mu = round_key(0, 0), np.uint32(1), jnp.float32(0.05), 3.0
    training = LocalTraining(objective, optax.identity(), lambda step: rate)
    algorithm, sent = fedprox(mu), Server(initial, ())
    sums = simulation.abstract_sums(objective, initial, state, batches[0])
    block = client.Block(
        jax.tree.map(lambda *x: np.stack(x), *batches),
        np.ones(2, bool), np.ones(2, bool), np.arange(2, dtype=np.int32),
    )  # fmt: skip
    start = client.start(training, algorithm, sent, state, (), sums)
    ours = client.train_block(training, algorithm, start, block, number, key, np.int32(0), sent).parameters
    parameters = initial
    for index, batch in enumerate(batches):
        of_loss = objective.value_and_grad(
            parameters, state, batch, step_key(key, number, np.int32(index)), 0
        )[0]

        def distance(p):
            return mu / 2 * optax.tree.norm(jax.tree.map(jnp.subtract, p, initial), squared=True)

        pull = jax.grad(distance)(parameters)
        parameters = jax.tree.map(lambda p, g, q: p - rate * (g + q), parameters, of_loss, pull)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, parameters)
