"""The app on a client's side: one client's round, and the state that never leaves it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fed import simulation
from fed.algorithm import Algorithm, Server
from fed.client import LocalTraining
from fed.cohort import ClientReport, Layout, RoundSettings, Verdict
from fed.engine.blocks import Engine
from fed.engine.client_states import ClientStates
from fed.flower.messages import Answer, fill, import_flwr, leaves_read, pack, pack_answer, select, unpack
from fed.placement import fetch, replicate
from fed.protocols import ClientSource, FederationError
from fed.round import train_cohort
from fed.server import ServerState

NOTHING = np.float32(0.0)
NOTHING_LEARNT = ClientReport._make(
    (NOTHING, np.float32(-np.inf), np.int32(Verdict.NOTHING_LEARNT), NOTHING, NOTHING, NOTHING)
)


def partition(context: Any, source: ClientSource) -> str:
    """Name the client of a node: the only one of its source, or number `partition-id` of the node.

    Raises:
        FederationError: the source has several clients, and the node has no such number.
    """
    names = list(source.client_ids())
    if len(names) == 1:
        return names[0]
    number = context.node_config.get("partition-id")
    if number is None or not 0 <= int(number) < len(names):
        raise FederationError(
            f"this node's source has {len(names)} clients: give it a partition-id from 0 to {len(names) - 1} "
            f"(--node-config partition-id=0), got {number}"
        )
    return names[int(number)]


def client_app(
    training: LocalTraining,
    algorithm: Algorithm,
    source: ClientSource,
    *,
    client_of: Callable[[Any, ClientSource], str] = partition,
) -> Any:
    """Make the flwr.clientapp.ClientApp that trains one client on its own data.

    The client's state, where the algorithm's clients keep one, lies in Flower's Context and never leaves
    the node. It begins as `Algorithm.client_init` of the first model that arrives.

    Args:
        training, algorithm: the same as on the server.
        source: with the node's own client, or with several, of which `client_of` chooses one.
        client_of: (context, source) -> name of the node's client; no two nodes may share one.

    Raises:
        FederationError: flwr is not installed.
    """
    flwr, app = import_flwr().app, import_flwr().client.ClientApp()
    trainer = _Trainer(training, algorithm, source)

    @app.query()
    def name(message: Any, context: Any) -> Any:
        content = {"client": flwr.ConfigRecord({"name": client_of(context, source)})}
        return flwr.Message(flwr.RecordDict(content), reply_to=message)

    @app.train()
    def train(message: Any, context: Any) -> Any:
        answer = trainer.answer(client_of(context, source), message.content, context.state)
        return flwr.Message(pack_answer(answer), reply_to=message)

    return app


class _Trainer:
    """Clients' rounds, one client at a time."""

    def __init__(self, training: LocalTraining, algorithm: Algorithm, source: ClientSource):
        # The server combines. With a rule of its own, the message of each client is kept as it is.
        whole = algorithm._replace(combine=lambda messages, log_weights: messages)
        self._settings, self._source = RoundSettings(training, whole, Layout(1, 1)), source
        self._like = jax.eval_shape(training.objective.init, jax.random.key(0))
        self._state_like = jax.eval_shape(algorithm.server_init, self._like[0])
        self._read = leaves_read(training, algorithm, self._like[0])
        self._engine: Engine | None = None

    def answer(self, client: str, request: Any, state: Any) -> Answer:
        """Train a client; `state` of the node's Context keeps what it keeps."""
        about, source = request["round"], self._source
        round_index = about["round"]
        plan = source.plan(client, round_index)
        if plan.num_steps == 0:
            return Answer(NOTHING_LEARNT, (), (), {}, 0, 0)
        begun = self._receive(request)
        if self._engine is None:
            batch = simulation.first_batch(source, [client], round_index)
            resident = getattr(source, "resident", None)
            self._engine = simulation.build_engine(
                self._settings, begun, batch, plan.num_steps, resident=resident
            )
        engine = self._engine._replace(states=self._states(client, state))
        sent = (Server(begun.parameters, begun.optimizer_state), begun.objective_state)
        trained = train_cohort(
            engine,
            replicate(sent, engine.programs.replicated),
            source,
            [client],
            seed=about["seed"],
            round_index=round_index,
            first_step=about["first-step"],
        )
        if engine.states is not None:
            state["client-state"] = pack(engine.states.take([client]))
        # A group of one client on one lane; a client alone has a share of 1 in the total of changes.
        report, (message, _) = fetch((trained.reports[0], trained.stacked[0]))
        change, sums = fetch((trained.totals.accumulator.values[1], trained.totals.sums))
        alone = jax.tree.map(lambda leaf: leaf[0], (report, message, change, dict(sums)))
        return Answer._make((*alone, trained.steps, trained.step_slots))

    def _receive(self, request: Any) -> ServerState:
        parameters, objective_state = (
            unpack(request[name], like, f"the {name} from the server")
            for name, like in zip(("parameters", "objective-state"), self._like, strict=True)
        )
        wanted = select(self._state_like, self._read)
        leaves = unpack(request["algorithm-state"], wanted, "the algorithm's state from the server")
        state = fill(leaves, self._state_like, self._read)
        return ServerState(parameters, objective_state, state, jnp.int32(request["round"]["round"]))

    def _states(self, client: str, state: Any) -> ClientStates | None:
        """Make a store with this client's state alone."""
        assert self._engine is not None
        if self._engine.states is None:
            return None
        first = self._engine.states.take([""])
        store = ClientStates(jax.tree.map(lambda leaf: leaf[0], first))
        if "client-state" in state:
            store.put([client], unpack(state["client-state"], first, f"the state of client {client}"), 0)
        return store
