"""Algorithms with compressed messages and models: what is sent, what is kept, and bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import simulation
from fed.algorithm import Server
from fed.algorithms import ALGORITHMS
from fed.algorithms.averaging import averaging
from fed.algorithms.diloco import diloco
from fed.algorithms.fednova import fednova
from fed.algorithms.robust import median
from fed.algorithms.scaffold import scaffold
from fed.client import LocalTraining
from fed.cohort import Layout, RoundSettings
from fed.compression import codec
from fed.compression.compressed import compressed
from fed.compression.transfers import Transfers, client_transfers, message_shapes
from fed.protocols import FederationError
from tests.fed.algorithms.regression import (
    COHORTS,
    RATE,
    Objective,
    Source,
    gradient,
    initial,
    simulate,
    vector,
)

EVERYONE = [list(range(5))]
MODEL = 4 * 4  # bytes: three weights and a bias


def training(optimizer=None):
    return LocalTraining(Objective(), optimizer or optax.identity(), lambda step: jnp.float32(RATE))


def store(algorithm, folder=None, on_disk=False):
    settings = RoundSettings(training(), algorithm, Layout(1, 1))
    made = simulation.client_states(settings, Objective.init(None)[0], folder, on_disk=on_disk)
    assert made is not None
    return made


def model_of(results):
    return vector(results[-1].server.parameters)


@pytest.mark.parametrize("name", ["scaffold", "fednova", "median", "diloco"])
def test_an_exact_codec_changes_no_algorithm(name):
    plain = {"scaffold": scaffold(), "fednova": fednova(), "median": median(), "diloco": diloco()}[name]
    exact = compressed(plain, codec("fp32"), codec("fp32"))
    np.testing.assert_allclose(model_of(simulate(exact)), model_of(simulate(plain)), rtol=1e-6)
    assert exact.client_init is plain.client_init  # nothing is left to feed back


def test_error_feedback_equals_a_loop():
    """Top-k has no randomness: each client sends the largest value of what it has not yet sent."""
    x, unsent = initial(), {client: np.zeros(4) for client in range(5)}
    source = Source(weights=(1.0,) * 5)
    for index, cohort in enumerate(COHORTS):
        sent = []
        for client in cohort:
            y = x.copy()
            for batch in source.client_batches(f"client{client}", index):
                y = y - RATE * gradient(y, batch)[0]
            meant = y - x + unsent[client]
            kept = np.zeros(4)
            kept[3] = meant[3]  # the bias is an array of its own
            largest = np.argmax(np.abs(meant[:3]))
            kept[largest] = meant[largest]
            unsent[client] = meant - kept
            sent.append(kept)
        x = x + np.mean(sent, axis=0)
    algorithm = compressed(averaging(), codec("topk:0.3"))
    np.testing.assert_allclose(model_of(simulate(algorithm, source=source)), x, rtol=1e-5)
    without = compressed(averaging(), codec("topk:0.3"), error_feedback=False)
    assert np.linalg.norm(model_of(simulate(without, source=source)) - x) > 1e-2


def test_all_that_was_meant_is_sent_or_kept():
    """Move the server's model by the messages of one client, beside a loop that says what was meant."""
    algorithm = compressed(averaging(), codec("q2"))
    states = store(algorithm)
    results = simulate(algorithm, [[2]] * 6, states=states)
    models = [initial(), *(vector(result.server.parameters) for result in results)]
    meant = 0.0
    for index, begun in enumerate(models[:-1]):
        y = begun.copy()
        for batch in Source().client_batches("client2", index):
            y = y - RATE * gradient(y, batch)[0]
        meant = meant + y - begun
    unsent = vector(jax.tree.map(lambda leaf: leaf[0], states.take(["client2"])["unsent"]["update"]))
    np.testing.assert_allclose(models[-1] - models[0] + unsent, meant, atol=1e-5)
    assert np.linalg.norm(unsent) > 1e-3


def test_the_control_of_scaffold_is_compressed_and_fed_back():
    """Compare a client's own control with the sum of its messages and its remainder."""
    algorithm = compressed(scaffold(), codec("q2"))
    states = store(algorithm)
    last = simulate(algorithm, [[2]] * 6, states=states)[-1]
    kept = jax.tree.map(lambda leaf: leaf[0], states.take(["client2"]))
    heard = 5 * vector(last.server.optimizer_state["control"])  # one of five clients
    np.testing.assert_allclose(heard + vector(kept["unsent"]["control"]), vector(kept["own"]), rtol=1e-4)
    assert np.linalg.norm(vector(kept["unsent"]["control"])) > 1e-2


def test_two_bits_with_error_feedback_end_near_the_dense_run():
    rounds = EVERYONE * 30
    source = Source(steps=(2,) * 5, weights=(1.0,) * 5, spread=0.3)
    dense = [vector(r.server.parameters) for r in simulate(averaging(), rounds, source)]
    held = compressed(averaging(), codec("q2"))
    coarse = [vector(r.server.parameters) for r in simulate(held, rounds, source)]
    moved = np.linalg.norm(np.mean(dense[10:], axis=0) - initial())
    assert np.linalg.norm(np.mean(coarse[10:], axis=0) - np.mean(dense[10:], axis=0)) < 0.05 * moved


def test_the_server_keeps_its_model_and_sends_a_rounded_one():
    """Clients that learn nothing from their data leave the server's model as it is, to the bit."""
    algorithm = compressed(averaging(), down=codec("q8"))
    (still,) = simulate(algorithm, EVERYONE, rate=0.0)
    np.testing.assert_array_equal(vector(still.server.parameters), initial())
    assert algorithm.broadcast is not None
    sent = algorithm.broadcast(Server(still.server.parameters, ()), jax.random.key(0))
    assert np.linalg.norm(vector(sent) - initial()) > 0
    one, two = [model_of(simulate(held)) for held in (averaging(), algorithm)]
    assert 0 < np.linalg.norm(one - two) < 0.05 * np.linalg.norm(one)


@pytest.mark.parametrize("name", ["averaging", "scaffold"])
def test_lanes_chunks_and_order_change_nothing(name):
    plain = {"averaging": averaging(), "scaffold": scaffold()}[name]
    algorithm = compressed(plain, codec("q4"), codec("q8"))
    alone = model_of(simulate(algorithm))
    backwards = [list(reversed(cohort)) for cohort in COHORTS]
    np.testing.assert_allclose(
        model_of(simulate(algorithm, backwards, layout=Layout(2, 2))), alone, rtol=1e-5
    )


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
def test_a_killed_run_continues_to_the_same_bits(on_disk, tmp_path):
    algorithm = compressed(scaffold(), codec("q2"), codec("q8"))
    through = simulate(algorithm)
    first = store(algorithm, tmp_path, on_disk)
    results = simulate(algorithm, states=first, rounds=6)
    first.save()
    # Two more rounds reach the disk, and their checkpoint does not.
    simulate(algorithm, states=first, rounds=8, state=results[-1].server)
    first.save()
    again = store(algorithm, tmp_path, on_disk)
    again.resume(6)
    rest = simulate(algorithm, states=again, state=results[-1].server)
    both = [jax.tree.leaves(results[-1].server) for results in (rest, through)]
    for ours, theirs in zip(*both, strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def test_a_client_that_does_not_count_keeps_its_former_remainder():
    class BrokenLater(Source):
        def client_batches(self, client_id, round_index):
            for batch in super().client_batches(client_id, round_index):
                broken = client_id == "client1" and round_index == 1
                yield batch | {"y": batch["y"] * np.float32(np.nan)} if broken else batch

    algorithm = compressed(averaging(), codec("q2"))
    states, kept = store(algorithm), []
    for rounds in (1, 2):
        results = simulate(
            algorithm,
            EVERYONE * 2,
            BrokenLater(),
            states=states,
            rounds=rounds,
            state=results[-1].server if kept else None,
        )
        kept.append(states.take(["client0", "client1"])["unsent"]["update"]["w"])
    assert results[-1].not_finite == ["client1"]
    assert np.any(kept[0][0] != kept[1][0])
    np.testing.assert_array_equal(kept[0][1], kept[1][1])
    assert np.any(kept[1][1] != 0)


@pytest.mark.parametrize(
    ("name", "floats_down", "floats_up"),
    [
        ("fedavg", 4, 4),
        ("fedprox", 4, 4),
        ("scaffold", 8, 8),  # the model with its control
        ("fednova", 4, 5),  # an update with its number of steps
        ("feddyn", 4, 4),  # its h stays on the server
        ("mime-lite", 8, 8),  # momentum down, gradients up
        ("q-fedavg", 4, 5),
        ("diloco", 4, 4),
        ("median", 4, 4),
    ],
)
def test_bytes_of_a_client_by_algorithm(name, floats_down, floats_up):
    parameters, state = Objective.init(None)
    plain = ALGORITHMS[name]()
    assert client_transfers(plain, training(), parameters, state) == (4 * floats_down, 4 * floats_up)
    # Codecs take everything that is shaped like the model, and nothing else.
    both = client_transfers(compressed(plain, codec("q8"), codec("bf16")), training(), parameters)
    a_model_of_q8 = (3 + 4) + (1 + 4)
    models, scalars = divmod(floats_up, 4)
    assert both == (2 * 4 + 4 * (floats_down - 4), models * a_model_of_q8 + 4 * scalars)


def test_an_algorithm_may_read_any_sum_of_its_objective():
    def gradient(step, memory):
        total, weight = step.evaluate(step.parameters)[1]["accuracy"]
        return jax.tree.map(lambda leaf: leaf * total / weight, step.gradients), memory

    algorithm = averaging()._replace(gradient=gradient)
    assert client_transfers(algorithm, training(), Objective.init(None)[0]) == (MODEL, MODEL)


def test_counted_bytes_are_those_of_a_message_that_is_serialised():
    parameters, up = Objective.init(None)[0], codec("q2")
    algorithm = compressed(scaffold(), up)
    message = jax.tree.map(
        lambda leaf: jnp.ones(leaf.shape, leaf.dtype), message_shapes(algorithm, training(), parameters)
    )
    packed = up.pack(message, jax.random.key(0))
    assert client_transfers(algorithm, training(), parameters).up == len(packed)


def test_bytes_of_a_round_count_the_objectives_state_and_late_clients():
    state = {"mean": jnp.zeros(10)}
    found = client_transfers(
        averaging(server_optimizer=optax.adam(0.1)), training(), Objective.init(None)[0], state
    )
    assert found == Transfers(MODEL + 40, MODEL + 40)
    assert found.of_clients(invited=5, answered=3) == (5 * 56, 3 * 56)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: compressed(averaging(), down=codec("topk:0.1")), "a model of mostly zeros"),
        (lambda: compressed(averaging(), codec("mask:0.1", unbiased=True)), "makes error feedback diverge"),
        (lambda: compressed(compressed(averaging(), codec("q8")), down=codec("q8")), "compressed already"),
    ],
)
def test_codecs_that_cannot_work_are_refused(make, why):
    with pytest.raises(FederationError, match=why):
        make()
