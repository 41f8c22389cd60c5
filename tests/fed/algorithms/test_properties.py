"""Properties that the papers claim, and layouts, orders and kills that must change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import server, simulation
from fed.algorithm import Start
from fed.algorithms.averaging import averaging
from fed.algorithms.diloco import diloco
from fed.algorithms.fednova import fednova
from fed.algorithms.robust import krum, median, trimmed_mean
from fed.algorithms.scaffold import scaffold
from fed.client import LocalTraining
from fed.cohort import Layout, RoundSettings
from fed.engine.client_states import ClientStates
from fed.privacy.noise import Privacy
from fed.protocols import FederationError
from fed.round import run_round
from tests.fed.algorithms.regression import COHORTS, Objective, Source, gradient, simulate, vector

EVERYONE = [list(range(5))]


class Quadratics(Source):
    """Clients with quadratics of different curvature and different optima, without noise.

    A client's batch is the same in every step, so that only the drift of local steps is left.
    """

    def client_batches(self, client_id, round_index):
        index = int(client_id.removeprefix("client"))
        scales = np.random.default_rng(index).uniform(0.1, 3.0, size=(4, 4))
        x = scales[:, :3].astype(np.float32)
        y = (3.0 * index * np.ones(4)).astype(np.float32)
        for _ in range(self.steps[index]):
            yield {"x": x, "y": y}


def optimum(source):
    """The model at which the clients' mean gradient vanishes."""
    first = [next(source.client_batches(name, 0)) for name in source.client_ids()]
    zero = np.mean([gradient(np.zeros(4), batch)[0] for batch in first], axis=0)
    columns = [np.mean([gradient(row, batch)[0] for batch in first], axis=0) - zero for row in np.eye(4)]
    return np.linalg.lstsq(np.stack(columns, 1), -zero, rcond=None)[0]


def gap(algorithm, source, rounds=100, rate=0.05):
    """Norm of the mean gradient at the model after the last round."""
    last = simulate(algorithm, EVERYONE * rounds, source, rate=rate)[-1]
    model = vector(last.server.parameters)
    first = [next(source.client_batches(name, 0)) for name in source.client_ids()]
    return float(np.linalg.norm(np.mean([gradient(model, batch)[0] for batch in first], axis=0)))


def test_scaffold_reaches_the_optimum_from_which_fedavg_drifts():
    source = Quadratics(steps=(10,) * 5, weights=(1.0,) * 5)
    drifted, exact = gap(averaging(), source), gap(scaffold(), source)
    assert drifted > 0.02
    assert exact < 0.1 * drifted


def test_fednova_is_unbiased_under_unequal_steps():
    """FedAvg goes to the optimum of the client with the most steps; FedNova does not."""
    source = Quadratics(steps=(1, 20, 1, 1, 1), weights=(1.0,) * 5)
    biased, unbiased = gap(averaging(), source, rate=0.005), gap(fednova(), source, rate=0.005)
    assert unbiased < 0.25 * biased


class Attacked(Source):
    """Ten clients, unlike a little; the last three have labels of the wrong sign that are far too large."""

    def client_batches(self, client_id, round_index):
        number = int(client_id.removeprefix("client"))
        for batch in super().client_batches("client1", round_index):
            yield batch | {"y": -100.0 * batch["y"] if number >= 7 else batch["y"] + 0.1 * (number - 3)}


ROBUST = {
    "median": median(),
    "trimmed-mean": trimmed_mean(0.3),
    "krum": krum(3),
    "multi-krum": krum(3, chosen=4),
}


@pytest.mark.parametrize("name", ROBUST)
def test_robust_rules_survive_three_bad_clients_of_ten(name):
    algorithm, everyone = ROBUST[name], [list(range(10))] * 10
    attacked = Attacked(steps=(3,) * 10, weights=(1.0,) * 10)
    honest = [list(range(7))] * 10
    wanted = vector(simulate(averaging(), honest, attacked)[-1].server.parameters)
    robust = vector(simulate(algorithm, everyone, attacked)[-1].server.parameters)
    spoilt = vector(simulate(averaging(), everyone, attacked)[-1].server.parameters)
    assert np.linalg.norm(robust - wanted) < 0.3  # about the labels' own spread
    assert np.linalg.norm(spoilt - wanted) > 3.0


@pytest.mark.parametrize("name", ["scaffold", "median", "krum"])
def test_lanes_chunks_and_order_change_nothing(name):
    algorithm = {"scaffold": scaffold(), "median": median(), "krum": krum(1)}[name]
    plain = vector(simulate(algorithm)[-1].server.parameters)
    backwards = [list(reversed(cohort)) for cohort in COHORTS]
    for layout, cohorts in ((Layout(1, 2), COHORTS), (Layout(2, 2), backwards), (Layout(2, 1), COHORTS)):
        other = vector(simulate(algorithm, cohorts, layout=layout)[-1].server.parameters)
        np.testing.assert_allclose(other, plain, rtol=1e-5, atol=1e-6)


def store(algorithm, folder=None, on_disk=False, optimizer=None):
    training = LocalTraining(Objective(), optimizer or optax.identity(), lambda step: np.float32(0.05))
    settings = RoundSettings(training, algorithm, Layout(1, 1))
    return simulation.client_states(settings, Objective.init(None)[0], folder, on_disk=on_disk)


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("name", ["scaffold", "diloco"])
def test_a_killed_run_continues_to_the_same_bits(name, on_disk, tmp_path):
    algorithm = {"scaffold": scaffold(), "diloco": diloco()}[name]
    optimizer = optax.scale_by_adam() if name == "diloco" else None
    through = simulate(algorithm, optimizer=optimizer)
    first = store(algorithm, tmp_path, on_disk, optimizer)
    results = simulate(algorithm, states=first, rounds=6, optimizer=optimizer)
    first.save()
    # Two more rounds reach the disk, and their checkpoint does not.
    simulate(algorithm, states=first, rounds=8, state=results[-1].server, optimizer=optimizer)
    first.save()
    again = store(algorithm, tmp_path, on_disk, optimizer)
    again.resume(6)
    rest = simulate(algorithm, states=again, state=results[-1].server, optimizer=optimizer)
    both = [jax.tree.leaves(results[-1].server) for results in (rest, through)]
    for ours, theirs in zip(*both, strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def test_old_states_are_forgotten_and_the_newest_stays(tmp_path):
    states = ClientStates({"c": np.zeros(2, np.float32)}, tmp_path)
    for round_index in (1, 3, 5):
        states.put(["a"], {"c": np.full((1, 2), round_index, np.float32)}, round_index)
        states.save()
    states.put(["b"], {"c": np.ones((1, 2), np.float32)}, 2)
    states.save()
    states.forget_before(4)  # the oldest checkpoint that is left
    assert sorted(path.name for path in tmp_path.rglob("[0-9]*.npz")) == ["2.npz", "3.npz", "5.npz"]
    states.resume(4)
    np.testing.assert_array_equal(states.take(["a", "b", "new"])["c"], [[3, 3], [1, 1], [0, 0]])
    assert sorted(path.name for path in tmp_path.rglob("[0-9]*.npz")) == ["2.npz", "3.npz"]
    other = ClientStates({"c": np.zeros(3, np.float32)}, tmp_path)
    with pytest.raises(FederationError, match="another algorithm or model"):
        other.resume(4)


def test_a_client_that_does_not_count_keeps_its_former_state():
    class Broken(Source):
        def client_batches(self, client_id, round_index):
            for batch in super().client_batches(client_id, round_index):
                yield batch | {"y": batch["y"] * np.float32(np.nan)} if client_id == "client1" else batch

    states = store(scaffold())
    (result,) = simulate(scaffold(), EVERYONE, Broken(), states=states)
    held = states.take(["client0", "client1"])
    assert result.not_finite == ["client1"]
    assert np.any(held["w"][0] != 0)
    np.testing.assert_array_equal(held["w"][1], np.zeros(3))
    assert np.isfinite(vector(result.server.parameters)).all()


@pytest.mark.parametrize("algorithm", [median(), scaffold()], ids=["median", "scaffold"])
def test_a_round_without_clients_leaves_the_model(algorithm):
    results = simulate(algorithm, [[0, 1], [], [2, 0]])
    one, two, three = [vector(result.server.parameters) for result in results]
    np.testing.assert_array_equal(one, two)
    assert np.any(three != two)


def test_a_client_twice_with_a_state_is_refused():
    with pytest.raises(FederationError, match="client twice, and this algorithm's clients keep a state"):
        simulate(scaffold(), [[0, 0, 1]])


@pytest.mark.parametrize(
    ("algorithm", "why"),
    [(scaffold(), "send their updates alone"), (averaging(), "uniform rule"), (median(), "takes their mean")],
)
def test_privacy_refuses_algorithms_that_its_noise_does_not_cover(algorithm, why):
    data = Source()
    run = simulation.Simulation(
        LocalTraining(Objective(), optax.identity(), lambda step: np.float32(0.05)),
        algorithm,
        data,
        lambda index: data.client_ids(),
        Layout(1, 1),
        0,
        5,
        privacy=Privacy(1.0, 1.0, 5.0),
    )
    with pytest.raises(FederationError, match=why):
        next(simulation.run(run, server.init(Objective(), algorithm, jax.random.key(0)), 1))


def test_cohorts_of_many_sizes_share_few_programs():
    algorithm, source = median(), Source()
    run = simulation.Simulation(
        LocalTraining(Objective(), optax.identity(), lambda step: np.float32(0.05)),
        algorithm, source, lambda index: [], Layout(1, 1), 0, 5,
    )  # fmt: skip
    state = server.init(Objective(), algorithm, jax.random.key(0))
    engine = simulation.prepare(run, state)
    for index, size in enumerate((1, 2, 3, 4, 5, 3, 5)):
        cohort = source.client_ids()[:size]
        state = run_round(engine, state, source, cohort, seed=0, round_index=index, first_step=0).server
    assert engine.programs.step._cache_size() == 4  # one, two, up to four and up to eight groups


def test_a_state_made_of_the_model_is_that_of_the_runs_beginning(tmp_path):
    """A client that is first drawn after a run was continued begins as in a run that was not."""

    def message(trained):
        return trained.update, trained.memory

    def begin(training, sent, kept):
        return Start(sent.parameters, training.optimizer.init(sent.parameters), kept)

    algorithm = averaging()._replace(
        client_init=lambda training, parameters: parameters, begin=begin, message=message
    )
    initial = Objective.init(None)[0]
    states = store(algorithm, tmp_path)
    states.resume(0)
    (result,) = simulate(algorithm, [[0]], states=states)
    states.save()
    later = ClientStates(jax.tree.map(np.asarray, result.server.parameters), tmp_path)
    later.resume(1)
    for kept, first in zip(jax.tree.leaves(later.take(["client4"])), jax.tree.leaves(initial), strict=True):
        np.testing.assert_array_equal(kept[0], first)


def test_a_run_continues_with_what_its_clients_kept_alone(tmp_path):
    (result,) = simulate(scaffold(), [[0, 1]])
    with pytest.raises(FederationError, match="the state after round 1 cannot go on alone"):
        simulate(scaffold(), [[0], [1]], state=result.server)
    with pytest.raises(FederationError, match=r"lacks initial\.npz"):
        ClientStates({"c": np.zeros(2, np.float32)}, tmp_path / "lost").resume(3)


def test_states_in_sixteen_bits_are_read_back(tmp_path):
    first = {"c": np.zeros(2, jnp.bfloat16)}
    states = ClientStates(first, tmp_path, on_disk=True)
    states.resume(0)
    states.put(["a"], {"c": np.full((1, 2), 1.5, jnp.bfloat16)}, 1)
    assert states.take(["a"])["c"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(states.take(["a"])["c"].astype(np.float32), [[1.5, 1.5]])
