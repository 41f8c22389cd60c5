"""The real objective, with every kind of noise, in every layout: the same to 1e-5 of the norm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import server, simulation
from fed.aggregation import loss_weighted
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.protocols import ClientPlan
from tests.configs import SMALL
from w2v_jax.objective import Batch, pretraining_objective

CONFIG = SMALL.replace(
    dropout=0.1,
    attention_dropout=0.1,
    activation_dropout=0.1,
    input_dropout=0.1,
    feature_dropout=0.1,
    layer_drop=0.2,
)


class NoiseClients:
    """Three clients with 3, 1 and 2 steps; some rows are padding."""

    def __init__(self):
        self.steps = {"a": 3, "b": 1, "c": 2}

    def client_ids(self):
        return list(self.steps)

    def plan(self, client_id, round_index):
        return ClientPlan(self.steps[client_id], 0, 1.0)

    def client_batches(self, client_id, round_index):
        for step in range(self.steps[client_id]):
            rng = np.random.default_rng((ord(client_id), round_index, step))
            lengths = np.array([900, 700, 0 if step else 800], np.int32)
            waveform = rng.standard_normal((3, 900)).astype(np.float32)
            waveform *= np.arange(900)[None] < lengths[:, None]
            yield Batch(waveform, lengths, np.arange(3, dtype=np.uint32) + np.uint32(10 * step))


def final_parameters(layout, order=("a", "b", "c"), block_steps=None):
    objective = pretraining_objective(CONFIG)
    training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.05))
    run = simulation.Simulation(
        training,
        loss_weighted(),
        optax.sgd(1.0),
        NoiseClients(),
        lambda r: list(order),
        layout,
        2,
        3,
        block_steps,
    )
    state = jax.jit(lambda k: server.init(objective, optax.sgd(1.0), k))(jax.random.key(0))
    *_, last = simulation.run(run, state, 3)
    return jax.device_get(last.server.parameters)


@pytest.fixture(scope="module")
def one_by_one():
    return final_parameters(Layout(1, 1))


@pytest.mark.parametrize(
    ("layout", "order", "block_steps"),
    [(Layout(1, 3), "abc", None), (Layout(2, 2), "cab", 2), (Layout(3, 1), "bca", 1)],
    ids=str,
)
def test_layout_order_and_blocks_change_nothing(one_by_one, layout, order, block_steps):
    found = final_parameters(layout, order, block_steps)
    difference = optax.tree.norm(jax.tree.map(np.subtract, found, one_by_one))
    assert difference <= 1e-5 * optax.tree.norm(one_by_one)
