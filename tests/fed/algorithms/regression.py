"""Linear regressions of clients that differ, for algorithms that a NumPy loop can follow by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fed import server, simulation
from fed.algorithm import Algorithm
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.protocols import ClientPlan

STEPS = (2, 5, 3, 4, 1)
WEIGHTS = (1.0, 2.0, 0.5, 1.5, 3.0)
RATE, SIZE = 0.05, 3
ONE_BY_ONE = Layout(1, 1)
COHORTS = [[0, 1, 2, 3], [1, 4, 2], [3, 0, 4], [2, 1, 0, 4], [4, 3]] * 2


class Objective:
    """Half the mean squared error of w @ x + b, without a state."""

    @staticmethod
    def init(key):
        del key
        return {"w": jnp.arange(SIZE, dtype=jnp.float32), "b": jnp.float32(0.5)}, {}

    @staticmethod
    def value_and_grad(parameters, state, batch, key, step):
        del key, step

        def loss(parameters):
            error = (batch["x"] * parameters["w"][None]).sum(-1) + parameters["b"] - batch["y"]
            return 0.5 * jnp.square(error).mean()

        value, gradients = jax.value_and_grad(loss)(parameters)
        return gradients, state, {"loss": (value, jnp.float32(1.0))}


class Source:
    """Clients whose data have different solutions; the batches of a client differ by round and step."""

    def __init__(self, steps=STEPS, weights=WEIGHTS, spread=1.0):
        self.steps, self.weights, self.spread = steps, weights, spread

    def client_ids(self):
        return [f"client{index}" for index in range(len(self.steps))]

    def plan(self, client_id, round_index):
        index = int(client_id.removeprefix("client"))
        return ClientPlan(self.steps[index], 0, self.weights[index])

    def client_batches(self, client_id, round_index):
        index = int(client_id.removeprefix("client"))
        own = np.random.default_rng(index)
        target = self.spread * own.normal(size=SIZE)
        rng = np.random.default_rng([index, round_index])
        for _ in range(self.steps[index]):
            x = rng.normal(size=(4, SIZE)).astype(np.float32)
            yield {"x": x, "y": (x @ target + self.spread * index).astype(np.float32)}


def gradient(parameters: np.ndarray, batch) -> tuple[np.ndarray, float]:
    """The gradient and the loss at parameters [w..., b], in float64."""
    x = np.concatenate([batch["x"], np.ones((len(batch["x"]), 1))], axis=1).astype(np.float64)
    error = x @ parameters - batch["y"]
    return x.T @ error / len(error), float(0.5 * np.square(error).mean())


def vector(parameters) -> np.ndarray:
    """Parameters as a vector [w..., b]."""
    return np.append(np.asarray(parameters["w"], np.float64), np.asarray(parameters["b"], np.float64))


def initial() -> np.ndarray:
    return vector(Objective.init(None)[0])


def simulate(
    algorithm: Algorithm,
    cohorts=COHORTS,
    source=None,
    *,
    layout=ONE_BY_ONE,
    optimizer=None,
    states=None,
    state=None,
    rounds=None,
    rate=RATE,
):
    """Run rounds of the cohorts: the results, with the servers on the host."""
    data = source or Source()
    run = simulation.Simulation(
        LocalTraining(Objective(), optimizer or optax.identity(), lambda step: jnp.float32(rate)),
        algorithm,
        data,
        lambda index: [f"client{client}" for client in cohorts[index]],
        layout,
        0,
        max(data.steps),
        states=states,
    )
    begun = server.init(Objective(), algorithm, jax.random.key(0)) if state is None else state
    return [
        result._replace(server=jax.device_get(result.server))
        for result in simulation.run(run, begun, rounds or len(cohorts))
    ]
