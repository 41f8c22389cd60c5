"""Flower's apps: rounds over loopback end as the simulation's do. Most tests need flwr 1.42.0."""

import os
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import server, simulation
from fed.algorithms.averaging import averaging
from fed.algorithms.diloco import diloco
from fed.algorithms.mime_lite import mime_lite
from fed.algorithms.robust import median
from fed.algorithms.scaffold import scaffold
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.flower import client_app, server_app
from fed.flower.messages import import_flwr, leaves_read
from fed.keys import initial_key
from fed.protocols import FederationError
from tests.fed.toy import ToySource, toy_objective

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
SEED, STEPS = 3, [3, 2, 5, 4]
MOMENTUM = server.OPTIMIZERS["fedavgm"](0.5)


@pytest.fixture
def flwr():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("flwr", exc_type=ImportError)


def training(optimizer=None):
    return LocalTraining(toy_objective(), optimizer or optax.identity(), lambda step: jnp.float32(0.02))


def loopback(app_of_client, clients):
    """Make a Grid whose nodes answer in this process; messages and contexts cross as protobuf's bytes."""
    from flwr.app import Context, Error, Message, RecordDict
    from flwr.common.serde import context_from_proto, context_to_proto, message_from_proto, message_to_proto
    from flwr.proto.message_pb2 import Context as ContextBytes
    from flwr.proto.message_pb2 import Message as MessageBytes
    from flwr.serverapp import Grid
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1

    class Loopback(Grid):
        def __init__(self):
            self.bytes_sent, self.contexts = 0, {}
            for partition in range(clients):
                node = 100 + partition
                own = Context(1, node, {"partition-id": partition}, RecordDict(), {})
                self.contexts[node] = context_to_proto(own).SerializeToString()

        def get_node_ids(self):
            return list(self.contexts)

        def send_and_receive(self, messages, *, timeout=None):
            return [self.answer(message) for message in messages]

        def crossed(self, message):
            sent = message_to_proto(message).SerializeToString()
            return message_from_proto(MessageBytes.FromString(sent)), len(sent)

        def answer(self, message):
            node = message.metadata.dst_node_id
            message, size = self.crossed(message)
            self.bytes_sent += size
            context = context_from_proto(ContextBytes.FromString(self.contexts[node]))
            try:
                reply = app_of_client(node - 100)(message, context)
            except FederationError as error:
                reply = Message(Error(0, str(error)), reply_to=message)
            self.contexts[node] = context_to_proto(context).SerializeToString()
            return self.crossed(reply)[0]

        set_run = run = create_message = push_messages = pull_messages = None

    return Loopback()


def over_flower(algorithm, source, *, optimizer=None, rounds=2, apps=None, **words):
    """Run the two apps: (results with the server on the host, the grid)."""
    from flwr.app import Context, RecordDict

    results = []
    app = client_app(training(optimizer), algorithm, source)
    grid = loopback((apps or {}).get if apps else lambda client: app, len(source.client_ids()))
    made = server_app(
        training(optimizer),
        algorithm,
        rounds=rounds,
        steps_per_round=5,
        seed=SEED,
        on_round=lambda result: results.append(result._replace(server=jax.device_get(result.server))),
        **words,
    )
    made(grid, Context(1, 1, {}, RecordDict(), {}))
    return results, grid


def simulated(algorithm, source, *, optimizer=None, rounds=2, sampler=None):
    run = simulation.Simulation(
        training(optimizer),
        algorithm,
        source,
        sampler or (lambda index: source.client_ids()),
        Layout(1, 1),
        SEED,
        5,
    )
    state = server.init(run.training.objective, algorithm, initial_key(SEED))
    return [
        result._replace(server=jax.device_get(result.server)) for result in simulation.run(run, state, rounds)
    ]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(jax.tree.leaves(mine.server), jax.tree.leaves(other.server), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        assert mine.clients == other.clients
        assert (mine.skipped, mine.steps, mine.round_index) == (other.skipped, other.steps, other.round_index)
        np.testing.assert_allclose(mine.weights, other.weights, rtol=1e-5)
        for name, pair in other.sums.items():
            np.testing.assert_allclose(mine.sums[name], pair, rtol=1e-5)


@pytest.mark.parametrize("name", ["fedavgm", "scaffold", "median", "diloco"])
def test_two_rounds_of_four_clients_end_as_the_simulation_does(name, flwr):
    """The objective has a state and draws noise; clients' steps, DiLoCo's and SCAFFOLD's states differ."""
    algorithm, optimizer = {
        "fedavgm": (averaging(server_optimizer=MOMENTUM), None),
        "scaffold": (scaffold(), None),
        "median": (median(), None),
        "diloco": (diloco(), optax.scale_by_adam()),
    }[name]
    source = ToySource(STEPS)
    results, grid = over_flower(algorithm, source, optimizer=optimizer, minimum_clients=4)
    assert_same(results, simulated(algorithm, source, optimizer=optimizer))
    kept = {b"client-state" in context for context in grid.contexts.values()}
    assert kept == {name in ("scaffold", "diloco")}


def test_a_run_continues_from_a_state_with_the_same_sampler(flwr):
    source = ToySource(STEPS)
    whole = simulated(averaging(), source, sampler=lambda index: ["client1", "client3"])
    (first,) = simulated(averaging(), source, sampler=lambda index: ["client1", "client3"], rounds=1)
    rest, _ = over_flower(
        averaging(), source, state=first.server, sampler=lambda index: ["client1", "client3"]
    )
    assert_same(rest, whole[1:])


def test_clients_that_fail_diverge_or_have_nothing_are_named(flwr, caplog):
    source = ToySource([3, 0, 5, 4, 2], poison=(2,))
    app = client_app(training(), averaging(), source)

    def fails(message, context):
        if message.metadata.message_type == "train":
            raise FederationError("no space left")
        return app(message, context)

    apps = {0: app, 1: app, 2: app, 3: fails, 4: app}
    (result,), _ = over_flower(averaging(), source, apps=apps, rounds=1)
    assert (result.dropped, result.late) == (["client3"], [])
    assert (sorted(result.skipped), result.not_finite) == (["client1", "client2"], ["client2"])
    (expected,) = simulated(averaging(), ToySource([3, 0, 0, 0, 2]), rounds=1)
    np.testing.assert_allclose(result.server.parameters["w"], expected.server.parameters["w"], rtol=1e-5)
    assert "round 1: client client3 failed: no space left" in caplog.text


def test_an_answer_that_is_not_finite_does_not_count_whatever_its_client_says(flwr):
    from fed.flower.client import NOTHING_LEARNT
    from fed.flower.messages import Answer, pack_answer, unpack_answer

    report = NOTHING_LEARNT._replace(verdict=np.int32(0), log_weight=np.float32(0.0))
    update = {"w": np.array([1.0, np.nan], np.float32)}
    held = unpack_answer(pack_answer(Answer(report, update, {}, {}, 3, 3)), update, {}, "client a")
    assert (int(held.report.verdict), float(held.report.log_weight)) == (2, -np.inf)
    assert not held.message["w"].any()
    content, wanted = pack_answer(Answer(report, update, {}, {}, 3, 3)), {"w": np.zeros(3, np.float32)}
    with pytest.raises(FederationError, match=r"of client a: float32\[2\] as array 0 where float32\[3\] is"):
        unpack_answer(content, wanted, {}, "client a")


def test_arrays_of_bfloat16_come_back_as_they_were(flwr):
    from fed.flower.messages import pack, unpack

    tree = {"a": jnp.arange(3, dtype=jnp.bfloat16), "b": np.float32(2.0)}
    found = unpack(pack(tree), tree, "it")
    assert found["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found["a"], tree["a"])


def test_rounds_that_cannot_be_are_refused(flwr):
    source = ToySource(STEPS)
    with pytest.raises(FederationError, match="round 1 invites a client twice"):
        over_flower(averaging(), source, sampler=lambda index: ["client0", "client0"])
    with pytest.raises(FederationError, match="round 1: none of 1 clients answered"):
        over_flower(averaging(), source, sampler=lambda index: ["client9"])
    only = client_app(training(), averaging(), source, client_of=lambda context, source: "client0")
    with pytest.raises(FederationError, match="nodes 100 and 101 are both client client0"):
        over_flower(averaging(), source, apps=dict.fromkeys(range(4), only))


@pytest.mark.parametrize(
    ("algorithm", "read"),
    [
        (averaging(server_optimizer=MOMENTUM), set()),
        (scaffold(MOMENTUM), {"control"}),
        (mime_lite(optax.trace(0.9)), {"trace"}),
    ],
    ids=["fedavgm", "scaffold", "mime-lite"],
)
def test_only_state_that_clients_read_is_sent(algorithm, read):
    """FedAvg with momentum sends its model alone; SCAFFOLD sends its variate and no momentum."""
    like = jax.eval_shape(toy_objective().init, jax.random.key(0))[0]
    state = jax.eval_shape(algorithm.server_init, like)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    found = leaves_read(training(), algorithm, like)
    assert [any(word in path for word in read) for path in paths] == found
    assert len(paths) >= 2


def test_absent_flower_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "flwr.app", None)
    import_flwr.cache_clear()
    with pytest.raises(FederationError, match=r"Flower cannot be imported .*: pip install 'flwr==1\.42\.0'"):
        client_app(training(), averaging(), ToySource(STEPS))
    with pytest.raises(FederationError, match="the version that was tested"):
        server_app(training(), averaging(), rounds=1, steps_per_round=1)
    import_flwr.cache_clear()
