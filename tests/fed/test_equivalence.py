"""One client, one step equals plain training; chunks, lanes, order and padding change nothing."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import client, server, simulation
from fed.aggregation import fedavg, loss_weighted
from fed.algorithm import Server
from fed.algorithms.averaging import averaging
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.engine.blocks import choose_block_steps
from fed.keys import client_number, round_key, step_key
from fed.protocols import FederationError, Resident
from fed.round import run_round
from tests.fed.toy import ToySource, toy_objective

OPTIMIZERS = {
    # Rounding grows with rounds, and AdamW divides by it: SGD stays equal over ten rounds, AdamW at
    # eps 1e-6 over one. Momentum has a state that must start afresh each round.
    "sgd": (optax.identity(), 0.05, 10),
    "momentum": (optax.trace(0.9), 0.01, 4),
    "adamw": (optax.chain(optax.scale_by_adam(eps=1e-6), optax.add_decayed_weights(0.01)), 0.01, 1),
}
STEPS = [5, 3, 1, 4, 4, 2, 7]
ONE_BY_ONE = Layout(1, 1)


def train(
    optimizer="sgd",
    steps=STEPS,
    layout=ONE_BY_ONE,
    rule=fedavg,
    block_steps=None,
    order=None,
    rounds=None,
    **source,
):
    """Run a simulation; returns its last result and all per-client weights."""
    transformation, rate, default_rounds = OPTIMIZERS[optimizer]
    objective = toy_objective()
    data = ToySource(steps, **source)
    training = LocalTraining(objective, transformation, lambda step: jnp.float32(rate))
    names = order or data.client_ids()
    run = simulation.Simulation(
        training,
        averaging(rule),
        data,
        lambda r: list(names),
        layout,
        3,
        max(steps),
        block_steps,
    )
    state = server.init(objective, averaging(), jax.random.key(0))
    # A result's state is consumed by the next round, so it is fetched at once.
    rounds = simulation.run(run, state, rounds or default_rounds)
    return [result._replace(server=jax.device_get(result.server)) for result in rounds]


def assert_same(ours, theirs, share=1e-5):
    """Compare parameters and state within `share` of the global norm."""
    for mine, other in (
        (ours.server.parameters, theirs.server.parameters),
        (ours.server.objective_state, theirs.server.objective_state),
    ):
        mine, other = jax.device_get((mine, other))
        difference = optax.tree.norm(jax.tree.map(np.subtract, mine, other))
        assert difference <= share * optax.tree.norm(other)
    chex.assert_trees_all_close(ours.sums, theirs.sums, rtol=1e-3)


def one_by_one(optimizer, rounds, steps=STEPS):
    """Run FedAvg written plainly: a loop over clients and steps that shares only the step keys with ours."""
    transformation, rate, _ = OPTIMIZERS[optimizer]
    objective, data = toy_objective(), ToySource(steps)
    parameters, state = objective.init(jax.random.key(0))
    gradient = jax.jit(objective.value_and_grad)
    for round_index in range(rounds):
        key, models, states, weights = round_key(3, round_index), [], [], []
        for name in data.client_ids():
            p, s, o = parameters, state, transformation.init(parameters)
            for i, batch in enumerate(data.client_batches(name, round_index)):
                k = step_key(key, np.uint32(client_number(name)), np.int32(i))
                g, s, _ = gradient(p, s, batch, k, np.int32(0))
                with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
                    u, o = transformation.update(g, o, p)
                p = jax.tree.map(lambda a, b: a - jnp.float32(rate) * b, p, u)
            models.append(p)
            states.append(s)
            weights.append(data.plan(name, round_index).weight)
        share = np.array(weights, np.float32) / sum(weights)

        def mean(*leaves, share=share):
            return sum(jnp.float32(w) * leaf for w, leaf in zip(share, leaves, strict=True))

        parameters, state = jax.tree.map(mean, *models), jax.tree.map(mean, *states)
    return parameters


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rounds_equal_federated_averaging_written_plainly(optimizer):
    rounds = OPTIMIZERS[optimizer][2]
    ours = jax.device_get(train(optimizer)[-1].server.parameters)
    expected = jax.device_get(one_by_one(optimizer, rounds))
    difference = optax.tree.norm(jax.tree.map(np.subtract, ours, expected))
    assert difference <= 1e-5 * optax.tree.norm(expected)


@pytest.mark.parametrize(
    ("optimizer", "layout"),
    [
        pytest.param(optimizer, layout, marks=[pytest.mark.slow] * (optimizer != "sgd" and place != 4))
        for optimizer in OPTIMIZERS
        for place, layout in enumerate(
            [Layout(1, 7), Layout(1, 3), Layout(2, 1), Layout(8, 1), Layout(3, 2), Layout(4, 4)]
        )
    ],
    ids=str,
)
def test_layout_changes_nothing(optimizer, layout):
    assert_same(train(optimizer, layout=layout)[-1], train(optimizer)[-1])


@pytest.mark.parametrize(
    ("optimizer", "block_steps"),
    [
        pytest.param(
            optimizer, block_steps, marks=[pytest.mark.slow] * (optimizer != "sgd" and block_steps != 3)
        )
        for optimizer in OPTIMIZERS
        for block_steps in (1, 2, 3, 7, 20)
    ],
)
def test_blocks_and_padded_steps_change_nothing(optimizer, block_steps):
    ours = train(optimizer, block_steps=block_steps, layout=Layout(2, 2))
    assert_same(ours[-1], train(optimizer)[-1])


@pytest.mark.parametrize("rule", [fedavg, loss_weighted()], ids=["fedavg", "loss-weighted"])
def test_client_order_changes_nothing(rule):
    order = [f"client{i}" for i in (3, 6, 0, 5, 1, 4, 2)]
    ours = train(order=order, rule=rule, layout=Layout(2, 2))
    assert_same(ours[-1], train(rule=rule)[-1])


class StandingSource(ToySource):
    """The same clients with their first round's batches on the device; a batch is the place of the data."""

    def __init__(self, steps):
        super().__init__(steps)
        batches = {name: list(super(StandingSource, self).client_batches(name, 0)) for name in self.steps}
        self.places, rows = {}, []
        for name, held in batches.items():
            self.places[name] = np.arange(len(rows), len(rows) + len(held), dtype=np.int32)
            rows += held
        data = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        self.resident = Resident(data, lambda data, place: jax.tree.map(lambda leaf: leaf[place], data))

    def client_batches(self, client_id, round_index):
        return iter(self.places[client_id])


@pytest.mark.parametrize(
    ("layout", "block_steps"),
    [
        (Layout(1, 3), 2),  # several blocks
        (Layout(4, 2), max(STEPS)),  # a group's program in one
        pytest.param(Layout(1, 3), max(STEPS), marks=pytest.mark.slow),
        pytest.param(Layout(4, 2), 2, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_data_that_stay_on_the_device_change_nothing(layout, block_steps):
    def run(data):
        objective = toy_objective()
        training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.05))
        held = simulation.Simulation(
            training,
            averaging(),
            data,
            lambda r: data.client_ids(),
            layout,
            3,
            max(STEPS),
            block_steps,
        )
        *_, last = simulation.run(held, server.init(objective, averaging(), jax.random.key(0)), 1)
        return last

    assert_same(run(StandingSource(STEPS)), run(ToySource(STEPS)))


def test_one_client_one_step_equals_plain_training():
    objective = toy_objective()
    data = ToySource([1])
    ours = train(steps=[1], rounds=1)[-1].server.parameters
    parameters, state = objective.init(jax.random.key(0))
    batch = next(data.client_batches("client0", 0))
    key = step_key(round_key(3, 0), np.uint32(client_number("client0")), np.int32(0))
    gradients, _, _ = objective.value_and_grad(parameters, state, batch, key, 0)
    expected = jax.tree.map(lambda p, g: p - jnp.float32(0.05) * g, parameters, gradients)
    chex.assert_trees_all_close(jax.device_get(ours), jax.device_get(expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("layout", "block_steps"),
    [
        (Layout(1, 2), max(STEPS)),
        (Layout(4, 2), 3),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in itertools.product([Layout(2, 1)], [3, 7])),
        pytest.param(Layout(1, 2), 3, marks=pytest.mark.slow),
        pytest.param(Layout(4, 2), max(STEPS), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_each_program_compiles_once(layout, block_steps):
    # Cohorts of other sizes and other longest clients; blocks as chosen by default.
    objective, data = toy_objective(), ToySource(STEPS)
    cohorts = [["client2"], ["client0", "client2", "client5"], data.client_ids(), ["client6", "client1"]]
    training = LocalTraining(objective, optax.identity(), lambda s: jnp.float32(0.1))
    run = simulation.Simulation(training, averaging(), data, cohorts.__getitem__, layout, 0, max(STEPS))
    state = server.init(objective, averaging(), jax.random.key(0))
    engine = simulation.prepare(run, state)._replace(block_steps=block_steps)
    for round_index, cohort in enumerate(cohorts):
        outcome = run_round(
            engine, state, data, cohort, seed=0, round_index=round_index, first_step=7 * round_index
        )
        state = outcome.server
    programs = engine.programs
    # Groups in one block go through one program; where some take more, both kinds are there.
    used = {"whole", "step", "empty"} | ({"start", "block", "fold"} if block_steps < max(STEPS) else set())
    for name in ("start", "block", "fold", "whole", "step", "empty"):
        assert getattr(programs, name)._cache_size() == (name in used), name


def test_fewer_batches_than_planned_is_an_error_that_names_the_client():
    class Short(ToySource):
        def client_batches(self, client_id, round_index):
            yield next(super().client_batches(client_id, round_index))

    objective, data = toy_objective(), Short([1, 3])
    run = simulation.Simulation(
        LocalTraining(objective, optax.identity(), lambda s: jnp.float32(0.1)),
        averaging(), data, lambda r: data.client_ids(), ONE_BY_ONE, 0, 3,
    )  # fmt: skip
    state = server.init(objective, averaging(), jax.random.key(0))
    with pytest.raises(FederationError, match="client1 planned 3 steps and gave 1 batches"):
        list(simulation.run(run, state, 1))


def test_unequal_clients_are_sorted_so_that_little_is_padded():
    steps = [1, 8, 1, 8, 1, 8, 1, 8]
    slots = train(steps=steps, layout=Layout(1, 4), block_steps=1, rounds=1)[-1].step_slots
    assert slots == sum(steps)


def test_reported_loss_is_that_of_the_last_epoch():
    objective, data = toy_objective(), ToySource([4])
    training = LocalTraining(objective, optax.identity(), lambda s: jnp.float32(0.0))
    parameters, state = objective.init(jax.random.key(0))
    batches = list(data.client_batches("client0", 0))
    block = client.Block(
        jax.tree.map(lambda *x: np.stack(x), *batches),
        np.array([True, True, True, False]),
        np.array([False, True, True, True]),
        np.arange(4, dtype=np.int32),
    )
    sums = simulation.abstract_sums(objective, parameters, state, batches[0])
    start = client.start(training, averaging(), Server(parameters, ()), state, (), sums)
    key = round_key(0, 0)
    end = client.train_block(training, averaging(), start, block, np.uint32(1), key, np.int32(0))
    losses = [
        objective.value_and_grad(parameters, state, batch, step_key(key, np.uint32(1), np.int32(i)), 0)[2][
            "loss"
        ]
        for i, batch in enumerate(batches)
    ]
    np.testing.assert_allclose(end.last_loss[0], losses[1][0] + losses[2][0], rtol=1e-6)
    np.testing.assert_allclose(end.sums["steps"][0], 3)


def test_schedules_run_on_the_global_step():
    # The rate is the global step itself: 0, 1 in the first round and 2, 3 in the second.
    seen = []

    def rate(step):
        jax.debug.callback(lambda s: seen.append(int(s)), step)
        return jnp.float32(0.01)

    objective, data = toy_objective(), ToySource([2])
    run = simulation.Simulation(
        LocalTraining(objective, optax.identity(), rate),
        averaging(),
        data,
        lambda r: data.client_ids(),
        ONE_BY_ONE,
        0,
        2,
    )
    state = server.init(objective, averaging(), jax.random.key(0))
    list(simulation.run(run, state, 2))
    jax.effects_barrier()
    assert sorted(seen) == [0, 1, 2, 3]


def test_the_rounds_reported_loss_is_that_of_the_last_epoch():
    objective, data = toy_objective(), ToySource([4])
    training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.0))
    run = simulation.Simulation(training, averaging(), data, lambda r: data.client_ids(), ONE_BY_ONE, 3, 4, 3)
    parameters, state = objective.init(jax.random.key(0))
    (result,) = simulation.run(run, server.init(objective, averaging(), jax.random.key(0)), 1)
    number, key = np.uint32(client_number("client0")), round_key(3, 0)
    losses = [
        objective.value_and_grad(parameters, state, batch, step_key(key, number, np.int32(i)), 0)[2]["loss"]
        for i, batch in enumerate(data.client_batches("client0", 0))
    ]
    last = losses[data.plan("client0", 0).loss_from_step :]
    expected = sum(float(total) for total, _ in last) / sum(float(weight) for _, weight in last)
    np.testing.assert_allclose(result.losses, [expected], rtol=1e-5)


def test_block_size_respects_memory_and_divides_evenly():
    assert choose_block_steps(25, 1, Layout(2, 1)) == 25
    assert choose_block_steps(25, 2**20 * 2, Layout(2, 1)) == 13  # at most 16 fit: two blocks of 13
    assert choose_block_steps(5, 2**40, Layout(1, 1)) == 1
