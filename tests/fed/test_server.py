"""Compare server optimizers over rounds with their formulas in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import server, simulation
from fed.algorithm import Combined
from fed.algorithms.averaging import averaging
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.server import ADAPTIVITY as TAU
from fed.server import OPTIMIZERS
from tests.fed.toy import ToySource, toy_objective

STEPS, RATE, ROUNDS = [3, 2, 4], 0.3, 4


def rounds(optimizer, first=None, number=ROUNDS):
    """Run rounds from `first` on; return the server's state after each."""
    objective, data = toy_objective(), ToySource(STEPS)
    training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.05))
    run = simulation.Simulation(
        training,
        averaging(server_optimizer=optimizer),
        data,
        lambda r: data.client_ids(),
        Layout(2, 1),
        3,
        max(STEPS),
    )
    state = first or server.init(objective, averaging(server_optimizer=optimizer), jax.random.key(0))
    return [jax.device_get(result.server) for result in simulation.run(run, state, number)]


def mean_update(state):
    """Compute the clients' mean update of the next round by one plain round."""
    plain = optax.sgd(1.0)
    copied = jax.tree.map(jnp.asarray, state)
    first = server.ServerState(
        copied.parameters, copied.objective_state, plain.init(copied.parameters), copied.round_index
    )
    (after,) = rounds(plain, first, int(state.round_index) + 1)
    return jax.tree.map(np.subtract, after.parameters, state.parameters)


def by_formula(name):
    """Return an array's first moments, and its (moments, update, count) -> (moments, step)."""

    def adaptive(second):
        def step(held, u, count):
            m, v = held
            m, v = 0.9 * m + 0.1 * u, second(v, u)
            return (m, v), m / (1 - 0.9**count) / (np.sqrt(v / (1 - 0.99**count)) + TAU)

        return step

    def yogi(held, u, count):
        m, v = held
        m, v = 0.9 * m + 0.1 * u, v - 0.01 * u * u * np.sign(v - u * u)
        return (m, v), m / (np.sqrt(v) + TAU)

    def adagrad(held, u, count):
        total = held[0] + u * u
        return (total,), u / np.sqrt(total + TAU**2)

    def momentum(held, u, count):
        velocity = 0.9 * held[0] + u
        return (velocity,), velocity

    return {
        "fedavg": ((), lambda held, u, count: (held, u)),
        "fedavgm": ((0.0,), momentum),
        "fedadam": ((0.0, 0.0), adaptive(lambda v, u: 0.99 * v + 0.01 * u * u)),
        "fedyogi": ((0.0, TAU**2), yogi),
        "fedadagrad": ((TAU**2,), adagrad),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("fedavg", "fedavgm", "fedadagrad")))
        for name in OPTIMIZERS
    ],
)
def test_rounds_follow_the_formula(name):
    optimizer = OPTIMIZERS[name](RATE)
    first = server.init(toy_objective(), averaging(server_optimizer=optimizer), jax.random.key(0))
    states = [jax.device_get(first), *rounds(optimizer)]
    start, step = by_formula(name)
    held = jax.tree.map(lambda leaf: start, first.parameters)
    for count, (before, after) in enumerate(itertools.pairwise(states), 1):
        update = mean_update(before)
        for path in before.parameters:
            held[path], change = step(held[path], update[path].astype(np.float64), count)
            expected = before.parameters[path] + RATE * change
            # Where an update is tiny, dividing by its own size magnifies its rounding.
            np.testing.assert_allclose(after.parameters[path], expected, rtol=2e-4, atol=5e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_that_no_client_moved_keep_their_bits(name):
    """A frozen part stands still beside one that moves, over several rounds."""
    optimizer = OPTIMIZERS[name](RATE)
    parameters = {"frozen": jax.random.normal(jax.random.key(1), (7,)), "moving": jnp.ones(3)}
    algorithm = averaging(server_optimizer=optimizer)
    state = server.ServerState(parameters, {}, optimizer.init(parameters), jnp.int32(0))
    for _ in range(3):
        update = {"frozen": jnp.zeros(7), "moving": jnp.full(3, 0.01)}
        combined = Combined(update, jnp.float32(1.0), jnp.float32(1.0))
        state = server.step(algorithm, state, combined, {})
    assert np.asarray(state.parameters["frozen"]).tobytes() == np.asarray(parameters["frozen"]).tobytes()
    assert (state.parameters["moving"] > 1.0).all()
