"""fedjax's data, samplers and algorithm interface."""

import warnings
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import fedjax_bridge, server, simulation
from fed.algorithms.averaging import averaging
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.protocols import FederationError
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
    run = simulation.Simulation(training(), averaging(), source, sampler, Layout(1, 2), 1, 6)
    state = server.init(run.training.objective, averaging(), jax.random.key(0))
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
        averaging(),
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


def rows(size, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((size, 5)).astype(np.float32)
    return {"x": x, "y": np.sin(x).sum(1), "weight": np.ones(size, np.float32)}


def cohort_of(*sizes, names=None):
    """Make (id, dataset, key) of clients with `sizes` examples each, as fedjax's samplers do."""
    names = names or [f"c{index}".encode() for index in range(len(sizes))]
    return [
        (name, fedjax.ClientDataset(rows(size, seed)), jax.random.PRNGKey(0))
        for seed, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]


@pytest.fixture(scope="module")
def algorithm():
    return fedjax_bridge.federated_algorithm(
        training(), averaging(), Layout(1, 2), batch_size=BATCH, steps_per_round=2
    )


@pytest.fixture(scope="module")
def begun(algorithm):
    return algorithm.init(jax.random.key(0))


def model(state):
    return jax.device_get((state.parameters, state.objective_state))


@pytest.mark.parametrize("sizes", [(), (0,), (0, 0, 0)], ids=str)
def test_a_cohort_without_any_example_changes_the_rounds_number_alone(sizes, begun):
    # An algorithm of its own: it has seen no client yet.
    fresh = fedjax_bridge.federated_algorithm(
        training(), averaging(), Layout(1, 2), batch_size=BATCH, steps_per_round=2
    )
    state, diagnostics = fresh.apply(begun, cohort_of(*sizes))
    chex.assert_trees_all_equal(model(state), model(begun))
    assert int(state.round_index) == 1
    assert [held["accepted"] for held in diagnostics.values()] == [False] * len(sizes)


@pytest.mark.parametrize("sizes", [(8, 0), (0, 0, 0, 8)], ids=str)
def test_a_client_without_examples_adds_nothing(sizes, algorithm, begun):
    """It may come first or last, and there may be whole groups of such clients."""
    cohort = cohort_of(*sizes)
    state, diagnostics = algorithm.apply(begun, cohort)
    expected, _ = algorithm.apply(begun, [client for client in cohort if len(client[1])])
    chex.assert_trees_all_close(model(state), model(expected), rtol=1e-6)
    assert {name: held["accepted"] for name, held in diagnostics.items()} == {
        name: len(dataset) > 0 for name, dataset, _ in cohort
    }


def test_a_client_given_twice_trains_and_counts_twice(algorithm, begun):
    """It trains on the data that it is given each time, as in fedjax."""
    twice, diagnostics = algorithm.apply(begun, cohort_of(8, 8, 4, names=[b"c0", b"c0", b"c1"]))
    expected, _ = algorithm.apply(begun, cohort_of(8, 8, 4, names=[b"c0", b"c0\x001", b"c1"]))
    once, _ = algorithm.apply(begun, cohort_of(8, 4, names=[b"c0", b"c1"]))
    chex.assert_trees_all_close(model(twice), model(expected), rtol=1e-6)
    assert optax.tree.norm(jax.tree.map(np.subtract, model(twice), model(once))) > 1e-3
    assert set(diagnostics) == {b"c0", b"c1"}


@pytest.mark.parametrize("empty", [(0,), (2, 3)], ids=str)
def test_a_population_with_empty_clients_trains_to_the_end(empty):
    sizes = [0 if index in empty else 8 for index in range(4)]
    held = fedjax.InMemoryFederatedData({f"c{i}".encode(): rows(size, i) for i, size in enumerate(sizes)})
    results = simulate(held, lambda r: ["c0", "c1", "c2", "c3"])
    assert [result.round_index for result in results] == [1, 2]
    for result in results:
        assert sorted(result.skipped) == [f"c{index}" for index in empty]
        assert result.not_finite == []
        assert result.steps == 4 * (4 - len(empty))


def test_a_population_without_any_example_is_refused_before_the_first_round():
    held = fedjax.InMemoryFederatedData({b"c0": rows(0), b"c1": rows(0)})
    with pytest.raises(FederationError, match="none of the 2 clients has anything to train on"):
        simulate(held, lambda r: ["c0", "c1"])


def test_a_sampler_that_cannot_be_set_to_a_round_is_refused_at_once(data):
    shuffled = fedjax.client_samplers.UniformShuffledClientSampler(data.shuffled_clients(2, 0), 2)
    with pytest.raises(FederationError, match="use fedjax's UniformGetClientSampler"):
        fedjax_bridge.sampler(shuffled)


def test_ids_that_become_the_same_name_are_refused():
    class Held:
        """fedjax allows any ids that can be sorted."""

        def client_ids(self):
            return iter([b"7", "7"])

    held: Any = Held()
    with pytest.raises(FederationError, match="clients b'7' and '7' have the same name"):
        fedjax_bridge.FedjaxSource(held, batch_size=BATCH)
