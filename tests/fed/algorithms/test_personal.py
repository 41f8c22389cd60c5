"""Personal layers: what clients keep, what the server gets, and runs that continue."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import server, simulation
from fed.algorithms.averaging import averaging
from fed.algorithms.diloco import diloco
from fed.algorithms.mime_lite import mime_lite
from fed.algorithms.personal import joined, named, personal
from fed.algorithms.scaffold import scaffold
from fed.client import LocalTraining
from fed.cohort import Layout, RoundSettings
from fed.engine.client_states import ClientStates
from fed.protocols import FederationError
from tests.fed.algorithms.regression import (
    COHORTS,
    ONE_BY_ONE,
    RATE,
    WEIGHTS,
    Objective,
    Source,
    gradient,
    initial,
    simulate,
    vector,
)

LOCAL = named("b")
PERSONAL = personal(averaging(), LOCAL)


def settings(algorithm, optimizer=None):
    training = LocalTraining(Objective(), optimizer or optax.identity(), lambda step: jnp.float32(RATE))
    return RoundSettings(training, algorithm, ONE_BY_ONE)


def stored(algorithm, folder=None, optimizer=None):
    states = simulation.client_states(
        settings(algorithm, optimizer), Objective.init(None)[0], folder, on_disk=folder is not None
    )
    assert states is not None
    return states


def numpy_personal(rounds):
    """FedAvg over w with a bias b of each client's own: (w, b of every client)."""
    source, w, own = Source(), initial()[:3], dict.fromkeys(range(5), initial()[3])
    for index, cohort in enumerate(COHORTS[:rounds]):
        updates, weights = [], []
        for client in cohort:
            x = np.append(w, own[client])
            for batch in source.client_batches(f"client{client}", index):
                x = x - RATE * gradient(x, batch)[0]
            updates.append(x[:3] - w)
            own[client] = x[3]
            weights.append(WEIGHTS[client])
        w = w + np.average(updates, axis=0, weights=weights)
    return w, [own[client] for client in range(5)]


def test_clients_keep_their_leaves_and_share_the_others_as_a_loop_does():
    states = stored(PERSONAL)
    last = simulate(PERSONAL, states=states)[-1]
    w, own = numpy_personal(len(COHORTS))
    np.testing.assert_allclose(last.server.parameters["w"], w, rtol=1e-5)
    kept = states.take([f"client{client}" for client in range(5)])["local"]["b"]
    np.testing.assert_allclose(kept, own, rtol=1e-5)
    assert len(set(np.round(own, 3))) == 5


@pytest.mark.parametrize("algorithm", [averaging(), scaffold(), mime_lite(), diloco()])
def test_no_message_and_no_state_of_the_server_has_a_local_leaf(algorithm):
    """The bias, a scalar, is the only leaf of its shape: none may cross."""
    held = personal(algorithm, LOCAL)
    engine = simulation.build_engine(
        settings(held),
        server.init(Objective(), held, jax.random.key(0)),
        next(Source().client_batches("client0", 0)),
        5,
    )
    parameters = Objective.init(None)[0]
    begun = server.Server(parameters, held.server_init(parameters))
    crossing = [engine.programs.message(begun, {}), begun.state]
    assert {leaf.shape for leaf in jax.tree.leaves(crossing)} == {(3,)}
    for result in simulate(held, COHORTS[:2]):
        assert result.server.parameters["b"] == np.float32(0.5)
        assert np.isfinite(vector(result.server.parameters)).all()


def test_an_algorithm_with_client_states_keeps_them_beside_the_local_leaves():
    held = personal(scaffold(), LOCAL)
    states = stored(held)
    simulate(held, COHORTS[:3], states=states)
    kept = states.take(["client4"])
    assert kept["inner"]["b"] is None
    assert np.abs(kept["inner"]["w"]).max() > 0
    assert kept["local"]["w"] is None
    assert kept["local"]["b"] != np.float32(0.5)


def test_a_killed_run_continues_to_the_same_bits(tmp_path):
    held, adam = personal(diloco(), LOCAL), optax.scale_by_adam()
    whole = simulate(held, COHORTS[:4], optimizer=adam)[-1]
    first = ClientStates(stored(held, None, adam)._initial, tmp_path)
    begun = simulate(held, COHORTS[:4], optimizer=adam, states=first, rounds=2)[-1]
    first.save()
    again = ClientStates(stored(held, None, adam)._initial, tmp_path)
    again.resume(2)
    continued = simulate(held, COHORTS[:4], optimizer=adam, states=again, state=begun.server)[-1]
    for found, expected in zip(jax.tree.leaves(continued.server), jax.tree.leaves(whole.server), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_clients_side_by_side_give_the_same_model():
    alone = simulate(PERSONAL, COHORTS[:3])[-1]
    vmapped = simulate(PERSONAL, COHORTS[:3], layout=Layout(1, 2))[-1]
    np.testing.assert_allclose(vector(vmapped.server.parameters), vector(alone.server.parameters), rtol=1e-6)


@pytest.mark.parametrize("names", [("head",), ("w", "b")])
def test_a_predicate_has_to_choose_some_leaves(names):
    with pytest.raises(FederationError, match="chooses some leaves of the model, but not all"):
        server.init(Objective(), personal(averaging(), named(*names)), jax.random.key(0))


def test_joined_trees_have_every_leaf():
    assert joined({"a": 1, "b": None}, {"a": None, "b": 2}) == {"a": 1, "b": 2}
