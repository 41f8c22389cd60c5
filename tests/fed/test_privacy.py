"""Test clipping, noise, and private rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed import aggregation, sampling, server, simulation
from fed.algorithms.averaging import averaging
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.privacy.noise import Privacy, clip, noisy_mean
from fed.protocols import FederationError
from tests.fed.toy import ToyObjective, ToySource, toy_objective

ONE = Layout(1, 1)
SILENT = Privacy(clip_norm=0.5, noise_multiplier=0.0, expected_clients=4.0)


def stateless() -> ToyObjective:
    """Make the toy objective without a state."""
    toy = toy_objective()

    def init(key):
        return toy.init(key)[0], {}

    def value_and_grad(parameters, state, batch, key, step):
        gradients, _, sums = toy.value_and_grad(parameters, {"mean": jnp.zeros(5)}, batch, key, step)
        return gradients, {}, sums

    return ToyObjective(init, value_and_grad)


def updates(scale: float, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(scale * rng.standard_normal((3, 4, 2)), jnp.float32),
        "v": jnp.asarray(scale * rng.standard_normal(5), jnp.float32),
    }


@settings(deadline=None, max_examples=30)
@given(
    scale=st.floats(0.0, 100.0), limit=st.floats(0.01, 10.0), by_layer=st.booleans(), stacked=st.booleans()
)
def test_a_clipped_update_is_never_longer_than_the_norm(scale, limit, by_layer, stacked):
    privacy = Privacy(limit, 1.0, 1.0, by_layer, lambda path: stacked and path[0].key == "w")
    clipped, share = clip(updates(scale), privacy)
    assert float(optax.tree.norm(clipped)) <= limit * (1 + 1e-5)
    assert 0.0 <= float(share) <= 1.0


def test_short_updates_stay_as_they_are_and_long_ones_keep_their_direction():
    update = updates(1.0)
    norm = float(optax.tree.norm(update))
    same, share = clip(update, SILENT._replace(clip_norm=2 * norm))
    assert float(share) == 0.0
    jax.tree.map(np.testing.assert_array_equal, same, update)
    half, share = clip(update, SILENT._replace(clip_norm=norm / 2))
    assert float(share) == 1.0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b / 2, rtol=1e-5), half, update)


def test_an_update_of_zeros_is_clipped_to_zeros():
    zeros = jax.tree.map(jnp.zeros_like, updates(1.0))
    for by_layer in (False, True):
        clipped, share = clip(zeros, SILENT._replace(by_layer=by_layer))
        assert float(optax.tree.norm(clipped)) == 0.0
        assert float(share) == 0.0


def test_each_layer_of_a_stack_is_clipped_by_itself():
    update = {"w": jnp.stack([jnp.full((2, 2), 10.0), jnp.full((2, 2), 0.01)]), "v": jnp.full(4, 0.01)}
    privacy = SILENT._replace(clip_norm=3.0, by_layer=True, is_stacked=lambda path: path[0].key == "w")
    clipped, share = clip(update, privacy)
    limit = 3.0 / np.sqrt(3)
    np.testing.assert_allclose(jnp.linalg.norm(clipped["w"][0]), limit, rtol=1e-5)
    np.testing.assert_array_equal(clipped["w"][1], update["w"][1])
    np.testing.assert_array_equal(clipped["v"], update["v"])
    assert float(share) == pytest.approx(1 / 3)


def test_noise_has_the_deviation_asked_for_in_every_array():
    zeros = {"a": jnp.zeros((100, 200)), "b": jnp.zeros(20_000)}
    privacy = Privacy(clip_norm=2.0, noise_multiplier=3.0, expected_clients=4.0)
    noisy = noisy_mean(zeros, privacy, jax.random.key(0))
    for leaf in jax.tree.leaves(noisy):
        assert float(leaf.std()) == pytest.approx(2.0 * 3.0 / 4.0, rel=0.03)
        assert abs(float(leaf.mean())) < 0.05
    assert float(jnp.corrcoef(noisy["a"].ravel(), noisy["b"])[0, 1]) < 0.05


def run(privacy, layout=ONE, rounds=2, cohorts=None, seed=3, objective=None):
    objective, data = objective or stateless(), ToySource([5, 3, 1, 4])
    training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.05))
    sampler = (lambda r: cohorts[r]) if cohorts else sampling.everyone(data.client_ids())
    made = simulation.Simulation(
        training,
        averaging(aggregation.uniform),
        data,
        sampler,
        layout,
        seed,
        5,
        privacy=privacy,
    )
    state = server.init(objective, averaging(), jax.random.key(0))
    return [r._replace(server=jax.device_get(r.server)) for r in simulation.run(made, state, rounds)]


def distance(one, other):
    difference = jax.tree.map(np.subtract, one[-1].server.parameters, other[-1].server.parameters)
    return float(optax.tree.norm(difference))


def test_without_clipping_and_noise_a_private_round_is_the_uniform_mean():
    loose = run(Privacy(clip_norm=1e6, noise_multiplier=0.0, expected_clients=4.0))
    assert distance(loose, run(None)) < 1e-5
    assert loose[-1].clipped_share == 0.0


def test_one_client_moves_the_sum_by_the_clip_norm_at_most():
    everyone = run(SILENT, rounds=1)
    assert everyone[0].clipped_share > 0.5
    names = everyone[0].clients
    for name in names:
        fewer = run(SILENT, rounds=1, cohorts=[[n for n in names if n != name]])
        assert distance(everyone, fewer) * SILENT.expected_clients <= SILENT.clip_norm * (1 + 1e-4)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(2, 2),
        pytest.param(Layout(1, 3), marks=pytest.mark.slow),
        pytest.param(Layout(4, 1), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_layouts_add_the_same_noise(layout):
    noisy = SILENT._replace(noise_multiplier=1.0)
    alone = run(noisy)
    assert distance(run(noisy, layout), alone) < 1e-5
    assert distance(alone, run(SILENT)) > 0.1
    assert distance(run(noisy, seed=4), alone) > 0.1


def test_a_private_round_without_clients_still_adds_noise():
    noisy = SILENT._replace(noise_multiplier=1.0)
    names = ["client0", "client1"]
    one, two = run(noisy, rounds=1, cohorts=[names]), run(noisy, cohorts=[names, []])
    assert two[-1].clients == []
    assert two[-1].round_index == 2
    assert distance(one, two) > 0.1


def test_every_round_has_noise_of_its_own():
    noisy = SILENT._replace(noise_multiplier=1.0)
    first, second, third = (r.server.parameters for r in run(noisy, rounds=3, cohorts=[[], [], []]))
    one, other = (
        np.concatenate([(after[name] - before[name]).ravel() for name in sorted(after)])
        for before, after in ((first, second), (second, third))
    )
    assert np.linalg.norm(one) > 0.1 < np.linalg.norm(other)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.5


def test_weights_are_what_an_update_counts_in_the_servers_update():
    """Each weight is 1 / expected clients, whoever answers; the weights do not sum to one."""
    loose = SILENT._replace(clip_norm=1e6)
    (result,) = run(loose, rounds=1, cohorts=[["client0", "client2"]])
    assert result.weights.tolist() == [1 / 4, 1 / 4]
    alone = [run(loose, rounds=1, cohorts=[[name]])[0] for name in result.clients]
    start = server.init(stateless(), averaging(), jax.random.key(0)).parameters
    for name, leaf in result.server.parameters.items():
        # Alone too, a client counts a quarter.
        moves = [each.server.parameters[name] - start[name] for each in alone]
        np.testing.assert_allclose(leaf - start[name], sum(moves), atol=1e-5)


def test_a_client_twice_in_a_private_round_is_refused():
    with pytest.raises(FederationError, match="round 1 has a client twice"):
        run(SILENT, rounds=1, cohorts=[["client0", "client1", "client0"]])


def test_privacy_refuses_what_would_not_be_private():
    with pytest.raises(FederationError, match="state of its own"):
        run(SILENT, objective=toy_objective())
    data = ToySource([2])
    objective = stateless()
    made = simulation.Simulation(
        LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.05)),
        averaging(), data, sampling.everyone(data.client_ids()), Layout(1, 1), 0, 2,
        privacy=SILENT,
    )  # fmt: skip
    with pytest.raises(FederationError, match="uniform rule"):
        next(simulation.run(made, server.init(objective, averaging(), jax.random.key(0)), 1))


def test_poisson_sampling_takes_each_client_by_itself():
    names = [f"client{i}" for i in range(50)]
    sampler = sampling.poisson(names, 0.1, seed=0)
    cohorts = [sampler(r) for r in range(2000)]
    assert cohorts[:100] == [sampling.poisson(names[::-1], 0.1, seed=0)(r) for r in range(100)]
    sizes = np.array([len(c) for c in cohorts])
    assert sizes.mean() == pytest.approx(5.0, abs=0.2)
    assert sizes.var() == pytest.approx(4.5, abs=0.5)
    share = np.mean([names[0] in c for c in cohorts])
    assert share == pytest.approx(0.1, abs=0.03)
    with pytest.raises(FederationError, match=r"in \(0, 1\]"):
        sampling.poisson(names, 0.0, seed=0)
