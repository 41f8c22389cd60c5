"""fedjax's data, samplers and algorithm interface."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import fedjax_bridge, server, simulation
from fed.aggregation import fedavg
from fed.client import LocalTraining
from fed.cohort import Layout
from tests.fed.toy import toy_objective

with warnings.catch_warnings():
    # fedjax 0.0.17 has an invalid escape sequence, and haiku touches deprecated jax names.
    warnings.simplefilter("ignore")
    import fedjax

BATCH = 4


@pytest.fixture(scope="module")
def data():
    clients = {}
    for index, size in enumerate((8, 4, 12, 7)):
        rng = np.random.default_rng(index)
        x = rng.standard_normal((size, 5)).astype(np.float32)
        clients[f"c{index}".encode()] = {"x": x, "y": np.sin(x).sum(1), "weight": np.ones(size, np.float32)}
    return fedjax.InMemoryFederatedData(clients)


def training():
    return LocalTraining(toy_objective(), optax.identity(), lambda step: jnp.float32(0.05))


def simulate(data, sampler, rounds=2):
    source = fedjax_bridge.FedjaxSource(data, batch_size=BATCH, num_epochs=2, seed=1)
    run = simulation.Simulation(training(), fedavg, optax.sgd(1.0), source, sampler, Layout(1, 2), 1, 6)
    state = server.init(run.training.objective, optax.sgd(1.0), jax.random.key(0))
    return list(simulation.run(run, state, rounds))


def test_federated_data_plugs_in(data):
    source = fedjax_bridge.FedjaxSource(data, batch_size=BATCH, num_epochs=2, seed=1)
    assert source.client_ids() == ["c0", "c1", "c2", "c3"]
    assert [source.plan(c, 0).num_steps for c in source.client_ids()] == [4, 2, 6, 4]
    assert source.plan("c2", 0).loss_from_step == 3
    first, again, later = ([b["x"] for b in source.client_batches("c2", r)] for r in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert any((a != b).any() for a, b in zip(first, later, strict=True))


def test_client_sampler_plugs_in(data):
    sampler = fedjax_bridge.sampler(fedjax.client_samplers.UniformGetClientSampler(data, 2, seed=0))
    assert sampler(5) == sampler(5)
    assert len(set(sampler(5))) == 2
    results = simulate(data, sampler)
    assert [set(r.clients) for r in results] == [set(sampler(0)), set(sampler(1))]
    assert all(len(r.clients) == 2 for r in results)


def test_offered_as_a_federated_algorithm(data):
    algorithm = fedjax_bridge.federated_algorithm(
        training(),
        fedavg,
        optax.sgd(1.0),
        Layout(1, 2),
        batch_size=BATCH,
        steps_per_round=6,
        num_epochs=2,
        seed=1,
    )
    assert isinstance(algorithm, fedjax.FederatedAlgorithm)
    sampler = fedjax.client_samplers.UniformGetClientSampler(data, 4, seed=0)
    state = algorithm.init(jax.random.key(0))
    before = jax.device_get(state)
    for _ in range(2):
        state, diagnostics = algorithm.apply(state, sampler.sample())
    assert set(diagnostics) == {b"c0", b"c1", b"c2", b"c3"}
    np.testing.assert_allclose(sum(d["weight"] for d in diagnostics.values()), 1.0, rtol=1e-6)
    assert int(state.round_index) == 2
    # The same rounds as the simulation's own.
    expected = simulate(data, lambda r: ["c0", "c1", "c2", "c3"])[-1].server.parameters
    chex.assert_trees_all_close(
        jax.device_get(state.parameters), jax.device_get(expected), rtol=1e-4, atol=1e-6
    )
    # fedjax's callers may keep the old state.
    chex.assert_trees_all_equal(before, jax.device_get(algorithm.init(jax.random.key(0))))
