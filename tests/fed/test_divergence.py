"""Compare the agreement of updates with vectors worked out by hand; keeping models changes no bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import server, simulation
from fed.aggregation import fedavg, loss_weighted
from fed.algorithms.averaging import averaging
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.divergence import divergence
from tests.fed.toy import ToySource, toy_objective

STEPS = [5, 3, 1, 4, 2]


def stacked(vectors):
    """Stack vectors of four numbers as a tree with two leaves."""
    values = np.array(vectors, np.float32)
    return {"a": values[:, :1], "b": values[:, 1:].reshape(-1, 1, 3)}


def test_cosines_and_norms_of_known_vectors():
    found = divergence(stacked([[3, 0, 0, 0], [0, 4, 0, 0], [0, -4, 0, 0]]), np.array([0.5, 0.25, 0.25]))
    np.testing.assert_allclose(found.norms, [3, 4, 4])
    assert found.mean_norm == pytest.approx(1.5)
    np.testing.assert_allclose(found.cosine_to_mean, [1, 0, 0], atol=1e-12)
    # The others of the first cancel out: there is no direction to compare with.
    np.testing.assert_allclose(found.cosine_to_others, [np.nan, -0.8, -0.8])


def test_it_equals_what_is_computed_from_whole_vectors():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((6, 4)).astype(np.float32)
    weights = rng.dirichlet(np.ones(6))
    found = divergence(stacked(vectors), weights)
    whole = vectors.astype(np.float64)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    mean = weights @ whole
    others = [np.delete(whole, client, 0).mean(0) for client in range(6)]
    np.testing.assert_allclose(found.cosine_to_mean, [cosine(row, mean) for row in whole], rtol=1e-9)
    np.testing.assert_allclose(
        found.cosine_to_others, [cosine(row, other) for row, other in zip(whole, others, strict=True)]
    )
    assert found.mean_norm == pytest.approx(np.linalg.norm(mean))


def test_a_client_that_is_not_finite_is_nan_and_spoils_no_other():
    vectors = [[1.0, 2, 0, 0], [0, np.nan, 1, 1], [2.0, 1, 1, 0]]
    found = divergence(stacked(vectors), np.array([0.5, 0.0, 0.5]))
    without = divergence(stacked([vectors[0], vectors[2]]), np.array([0.5, 0.5]))
    for ours, theirs in zip(found[:3], without[:3], strict=True):
        assert np.isnan(ours[1])
        np.testing.assert_allclose(ours[[0, 2]], theirs)
    assert found.mean_norm == without.mean_norm


def test_a_client_alone_or_without_update_has_no_cosine():
    alone = divergence(stacked([[1, 2, 3, 4]]), np.array([1.0]))
    assert np.isnan(alone.cosine_to_others[0])
    assert alone.cosine_to_mean[0] == pytest.approx(1.0)
    still = divergence(stacked([[0, 0, 0, 0], [1, 0, 0, 0]]), np.array([0.5, 0.5]))
    assert np.isnan(still.cosine_to_mean[0])
    assert still.norms[0] == 0.0


def rounds(layout, *, keep, rule=fedavg, block_steps=None, num_rounds=3, client=None):
    objective, data = toy_objective(), ToySource(STEPS)
    names = data.client_ids() if client is None else [client]
    training = LocalTraining(objective, optax.trace(0.9), lambda step: jnp.float32(0.01))
    run = simulation.Simulation(
        training,
        averaging(rule),
        data,
        lambda r: list(names),
        layout,
        3,
        max(STEPS),
        block_steps,
        keep,
    )
    state = server.init(objective, averaging(), jax.random.key(0))
    return [
        result._replace(server=jax.tree.map(lambda leaf: np.array(leaf), result.server))
        for result in simulation.run(run, state, num_rounds)
    ]


@pytest.mark.parametrize(
    "layout",
    [
        Layout(2, 2),
        pytest.param(Layout(1, 1), marks=pytest.mark.slow),
        pytest.param(Layout(4, 1), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_keeping_models_changes_no_bit(layout):
    plain = rounds(layout, keep=lambda r: False)
    kept = rounds(layout, keep=lambda r: r != 1)
    assert [result.models is not None for result in kept] == [True, False, True]
    for ours, theirs in zip(kept, plain, strict=True):
        assert theirs.models is None
        for mine, other in zip(
            jax.tree.leaves((ours.server, ours.sums, ours.losses, ours.weights)),
            jax.tree.leaves((theirs.server, theirs.sums, theirs.losses, theirs.weights)),
            strict=True,
        ):
            assert np.asarray(mine).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize(
    "rule",
    [pytest.param(fedavg, marks=pytest.mark.slow), loss_weighted(0.3)],
    ids=["fedavg", "loss-weighted"],
)
def test_kept_models_average_to_the_next_one(rule):
    results = rounds(Layout(2, 2), keep=lambda r: True, rule=rule, block_steps=2)
    for earlier, result in zip([None, *results], results, strict=False):
        models = result.models
        assert models is not None
        if earlier is not None:
            same = zip(
                jax.tree.leaves(models.before),
                jax.tree.leaves((earlier.server.parameters, earlier.server.objective_state)),
                strict=True,
            )
            assert all((mine == other).all() for mine, other in same)
        mean = jax.tree.map(lambda leaf, weights=result.weights: np.tensordot(weights, leaf, 1), models.after)
        for mine, other in zip(
            jax.tree.leaves(mean),
            jax.tree.leaves((result.server.parameters, result.server.objective_state)),
            strict=True,
        ):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
        found = divergence(models.updates(), result.weights)
        np.testing.assert_allclose(found.norms, result.update_norms, rtol=1e-5)
        assert found.mean_norm == pytest.approx(result.mean_update_norm, rel=1e-5)


def test_a_kept_model_is_that_of_its_client():
    result = rounds(Layout(2, 2), keep=lambda r: True, num_rounds=1)[0]
    assert result.models is not None
    for place, name in enumerate(result.clients):
        alone = rounds(Layout(1, 1), keep=lambda r: False, num_rounds=1, client=name)[0].server
        for mine, other in zip(
            jax.tree.leaves(result.models.of(place)),
            jax.tree.leaves((alone.parameters, alone.objective_state)),
            strict=True,
        ):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)
