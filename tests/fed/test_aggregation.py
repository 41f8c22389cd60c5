import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed import aggregation
from fed.cohort import Layout
from tests.fed.test_equivalence import train
from tests.fed.toy import ToySource


def weighted_mean(values, log_weights, chunks):
    """Fold in chunks, merge per lane, finish."""
    accumulator = aggregation.empty(values[0])
    start = 0
    for size in chunks:
        part = jnp.stack(values[start : start + size])
        accumulator = aggregation.add(
            accumulator, part, jnp.array(log_weights[start : start + size], jnp.float32)
        )
        start += size
    return np.asarray(aggregation.finish(accumulator))


@given(
    losses=st.lists(st.floats(-50, 5000), min_size=6, max_size=6),
    chunks=st.sampled_from([(6,), (1,) * 6, (2, 4), (4, 2), (3, 1, 2)]),
)
@settings(max_examples=60, deadline=None)
def test_streaming_softmax_equals_softmax(losses, chunks):
    values = [jnp.full(3, float(i)) for i in range(6)]
    losses = np.array(losses, np.float32)
    weights = np.exp(-(losses - losses.min()).astype(np.float64))
    weights /= weights.sum()
    expected = (weights * np.arange(6)).sum()
    np.testing.assert_allclose(weighted_mean(values, -losses, chunks), expected, rtol=1e-4, atol=1e-4)


def test_loss_weights_prefer_low_losses():
    rule = aggregation.loss_weighted()
    log_weights = jnp.array([rule(jnp.float32(loss), jnp.float32(9)) for loss in (4.0, 5.0)])
    weights = jax.nn.softmax(log_weights)
    np.testing.assert_allclose(weights[0] / weights[1], np.e, rtol=1e-5)
    assert weights[0] > weights[1]


def test_temperature_flattens():
    sharp, flat = (
        jax.nn.softmax(
            jnp.array([aggregation.loss_weighted(t)(jnp.float32(x), jnp.float32(1)) for x in (1, 3)])
        )
        for t in (1.0, 100.0)
    )
    assert sharp[0] > flat[0] > 0.5


@pytest.mark.parametrize("loss", [0.0, 4.6, 1e4, 1e30])
def test_equal_losses_give_the_plain_mean(loss):
    rule = aggregation.loss_weighted()
    values = [jnp.full(2, v) for v in (1.0, 2.0, 6.0)]
    log_weights = [float(rule(jnp.float32(loss), jnp.float32(w))) for w in (1.0, 50.0, 3.0)]
    np.testing.assert_allclose(weighted_mean(values, log_weights, (1, 2)), 3.0, rtol=1e-6)


def test_fedavg_weights_by_data():
    log_weights = [float(aggregation.fedavg(jnp.float32(9), jnp.float32(w))) for w in (1.0, 3.0)]
    mean = weighted_mean([jnp.zeros(1), jnp.full(1, 4.0)], log_weights, (2,))
    np.testing.assert_allclose(mean, 3.0, rtol=1e-6)


def test_left_out_clients_do_not_spoil_the_mean():
    values = [jnp.full(2, 1.0), jnp.full(2, jnp.nan), jnp.full(2, 3.0), jnp.full(2, jnp.inf)]
    log_weights = [0.0, -jnp.inf, 0.0, -jnp.inf]
    for chunks in ((4,), (1, 1, 1, 1), (2, 2)):
        np.testing.assert_allclose(weighted_mean(values, log_weights, chunks), 2.0)


def test_nobody_left_gives_zero():
    np.testing.assert_array_equal(weighted_mean([jnp.full(2, jnp.nan)], [-jnp.inf], (1,)), 0.0)


@pytest.mark.parametrize("layout", [Layout(1, 1), Layout(1, 4), Layout(2, 2)], ids=str)
@pytest.mark.parametrize("rule", [aggregation.fedavg, aggregation.loss_weighted()], ids=["fedavg", "loss"])
def test_a_client_that_is_not_finite_is_left_out_and_counted(rule, layout):
    steps = [3, 2, 3, 2, 1]
    results = train(steps=steps, poison=(1, 4), rule=rule, layout=layout, rounds=3)
    for result in results:
        assert sorted(result.skipped) == ["client1", "client4"]
        assert all(
            np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(result.server.parameters))
        )
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.sums))
        np.testing.assert_allclose(result.weights.sum(), 1.0)
        assert result.sums["steps"][0] == 8


@pytest.mark.parametrize("layout", [Layout(1, 1), Layout(2, 2)], ids=str)
def test_a_client_twice_in_a_cohort_counts_twice(layout):
    twice = train(steps=[3, 2], order=["client0", "client1", "client0"], layout=layout, rounds=1)[0]
    assert twice.clients == ["client0", "client0", "client1"]
    np.testing.assert_allclose(twice.weights, [3 / 8, 3 / 8, 2 / 8], rtol=1e-6)
    assert twice.losses[0] == twice.losses[1]
    assert twice.steps == 8


def test_all_clients_broken_leaves_the_model_as_it_was():
    with pytest.warns(UserWarning, match="used no client's update"):
        result = train(steps=[2, 2], poison=(0, 1), rounds=1)[0]
    assert len(result.skipped) == 2
    assert result.not_finite == result.skipped
    assert result.too_large == []
    assert result.mean_update_norm == 0.0
    assert result.weights.sum() == 0.0


def test_weights_reported_follow_the_rule():
    result = train(rule=aggregation.loss_weighted(0.5), rounds=1)[0]
    expected = np.exp(-result.losses.astype(np.float64) / 0.5)
    np.testing.assert_allclose(result.weights, expected / expected.sum(), rtol=1e-4)


def test_a_client_that_learnt_nothing_is_left_out(monkeypatch):
    # Its loss has no weight: 0 / 0, which a softmax over negative losses would prefer to all others.
    def empty_batches(self, client_id, round_index, original=ToySource.client_batches):
        for batch in original(self, client_id, round_index):
            yield batch | ({"weight": np.zeros_like(batch["weight"])} if client_id == "client1" else {})

    monkeypatch.setattr(ToySource, "client_batches", empty_batches)
    (result,) = train(steps=[3, 3, 3], rule=aggregation.loss_weighted(), rounds=1)
    assert result.skipped == ["client1"]


def test_a_state_that_is_not_finite_leaves_its_client_out(monkeypatch):
    from tests.fed import test_equivalence
    from tests.fed.toy import toy_objective

    plain = toy_objective()

    def value_and_grad(parameters, state, batch, key, step):
        gradients, state, sums = plain.value_and_grad(parameters, state, batch, key, step)
        broken = jnp.where(batch["y"].mean() > 1.5, jnp.inf, 0.0)
        return gradients, {"mean": state["mean"] + broken}, sums

    objective = plain._replace(value_and_grad=value_and_grad)
    monkeypatch.setattr(test_equivalence, "toy_objective", lambda: objective)
    (result,) = train(steps=[2, 2, 2, 2], rounds=1)
    assert 0 < len(result.skipped) < 4
    assert np.isfinite(result.server.objective_state["mean"]).all()
