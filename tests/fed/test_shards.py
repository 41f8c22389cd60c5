"""A model spread over devices gives the same result, and takes a share of the memory on each."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from fed import placement, server, simulation
from fed.aggregation import fedavg
from fed.algorithm import Server
from fed.algorithms.averaging import averaging
from fed.client import Block, LocalTraining
from fed.cohort import Layout, Shared, choose_layout
from fed.protocols import FederationError
from tests.fed import distributed_toy
from tests.fed.toy import ToySource, toy_objective

DIM = 4096  # so that the parameters are most of the memory


@pytest.mark.parametrize(
    ("shape", "shards", "spec"),
    [
        ((12, 768, 3072), 4, P(None, None, "shards")),
        ((3, 8), 4, P(None, "shards")),
        ((8, 3), 4, P("shards")),
        ((4, 4), 4, P(None, "shards")),
        ((5, 7), 4, P()),
        ((), 4, P()),
        ((8, 8), 1, P()),
    ],
)
def test_arrays_are_spread_along_their_longest_axis_that_devices_divide(shape, shards, spec):
    assert placement.shard_spec(shape, shards) == spec


@pytest.mark.parametrize(
    ("optimizer", "layout"),
    [
        pytest.param(optimizer, layout, marks=[pytest.mark.slow] * (place != plain))
        for optimizer, plain in (("sgd", 0), ("adamw", 1))
        for place, layout in enumerate([Layout(1, 1, 8), Layout(2, 2, 4), Layout(4, 3, 2)])
    ],
    ids=str,
)
def test_shards_change_nothing(layout, optimizer):
    expected, found = (distributed_toy.run(optimizer, 2, held)[-1] for held in (Layout(1, 1), layout))
    pairs = [
        (found.server.parameters, expected.server.parameters),
        (found.server.objective_state, expected.server.objective_state),
    ]
    for ours, theirs in pairs:
        difference = optax.tree.norm(jax.tree.map(np.subtract, ours, theirs))
        assert difference <= 1e-5 * optax.tree.norm(theirs)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-3, atol=1e-12)


def test_each_device_holds_its_share_of_a_model():
    objective, optimizer = toy_objective(dim=DIM), optax.sgd(1.0, momentum=0.9)
    training = LocalTraining(objective, optax.scale_by_adam(), lambda step: jnp.float32(0.01))
    data = ToySource([2, 2], dim=DIM, batch=1)
    temporary = {}
    for shards in (1, 4):
        state = jax.jit(lambda key: server.init(objective, averaging(server_optimizer=optimizer), key))(
            jax.random.key(0)
        )
        run = simulation.Simulation(
            training,
            averaging(fedavg, optimizer),
            data,
            lambda index: data.client_ids(),
            Layout(2, 1, shards),
            0,
            2,
        )
        engine = simulation.prepare(run, state)
        plan = _block_plan(engine, state)
        temporary[shards] = plan.temp_size_in_bytes + plan.argument_size_in_bytes
        *_, last = simulation.run(run, state, 1)
        kernel = last.server.parameters["w"]
        assert kernel.addressable_data(0).nbytes == kernel.nbytes // shards
        momentum = last.server.optimizer_state[0].trace["w"]
        assert momentum.addressable_data(0).nbytes == momentum.nbytes // shards
    assert temporary[4] < 0.4 * temporary[1]


def _block_plan(engine, state):
    """Get XLA's plan for the program that trains a group, on one device."""
    programs, lanes = engine.programs, engine.layout.group_size
    state = placement.replicate(state, placement.model_shardings(programs.mesh, state))
    sent = Server(state.parameters, state.optimizer_state)
    clients = programs.start(sent, state.objective_state, ())
    shape = (lanes, engine.block_steps)
    batch = jax.tree.map(lambda leaf: np.zeros((*shape, *leaf.shape), leaf.dtype), engine.batch)
    flags = np.ones(shape, bool)
    block = placement.put(Block(batch, flags, flags, np.zeros(flags.shape, np.int32)), programs.by_client)
    numbers = placement.put(np.zeros(lanes, np.uint32), programs.by_client)
    key, first = placement.replicate((jax.random.key(0), np.int32(0)), programs.replicated)
    lowered = programs.block.lower(clients, block, numbers, key, first, Shared(sent))
    return lowered.compile().memory_analysis()


def test_more_shards_than_devices_are_refused():
    assert choose_layout(4, shards=4) == Layout(2, 1, 4)
    with pytest.raises(FederationError, match="shards must be between 1 and 8"):
        choose_layout(4, shards=9)
    with pytest.raises(FederationError, match="lanes of 4 must be between 1 and 2"):
        choose_layout(4, lanes=3, shards=4)
