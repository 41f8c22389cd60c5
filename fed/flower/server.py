"""The app on the server's side: it sends the model, combines the answers and steps the server."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fed import aggregation, server, simulation
from fed.algorithm import Algorithm
from fed.attendance import Attendance
from fed.client import LocalTraining
from fed.cohort import Layout, RoundSettings, Totals, Verdict
from fed.engine.programs import Programs, build_programs
from fed.flower.messages import Answer, import_flwr, leaves_read, pack, select
from fed.flower.nodes import Nodes
from fed.keys import initial_key
from fed.placement import replicate
from fed.protocols import FederationError
from fed.round import RoundOutcome, send, step_server
from fed.sampling import Sampler
from fed.server import ServerState


def server_app(
    training: LocalTraining,
    algorithm: Algorithm,
    *,
    rounds: int,
    steps_per_round: int,
    seed: int = 0,
    sampler: Sampler | None = None,
    minimum_clients: int = 1,
    population: int | None = None,
    state: ServerState | None = None,
    on_round: Callable[[simulation.RoundResult], None] = lambda result: None,
    timeout_seconds: float | None = None,
) -> Any:
    """Make the flwr.serverapp.ServerApp that sends the model, combines the answers and steps the server.

    A client whose program fails, or that is not connected, counts as dropped; one that does not answer in
    time counts as late. Neither changes the model.

    Args:
        training, algorithm: the same as on the clients.
        rounds: length of the whole run, with the rounds of `state`.
        steps_per_round: local steps by which schedules advance in a round.
        seed: the seed of all keys, and of the first model.
        sampler: round index -> names of the invited clients; None invites all that are connected.
        minimum_clients: a round waits until this many are connected.
        population: all clients that there are; None takes those that have been connected so far.
        state: the server's state to continue from, such as a checkpoint; it is consumed.
        on_round: gets every finished round; the next round consumes its `server`.
        timeout_seconds: for the answers of a round; None waits until the messages expire.

    Raises:
        FederationError: flwr is not installed. In a run: no client of a round answered, a round invites a
            client twice, or two nodes are the same client.
    """
    app = import_flwr().server.ServerApp()

    @app.main()
    def main(grid: Any, context: Any) -> None:
        del context
        held = server.init(training.objective, algorithm, initial_key(seed)) if state is None else state
        run = _Run(training, algorithm, held, seed, steps_per_round)
        nodes = Nodes(grid, timeout_seconds)
        for round_index in range(int(held.round_index), rounds):
            connected = nodes.wait_for(minimum_clients)
            invited = sorted(connected) if sampler is None else list(sampler(round_index))
            result = run.round(held, nodes, invited, round_index, population)
            held = result.server
            on_round(result)

    return app


class _Run:
    """The server's side of rounds."""

    def __init__(
        self,
        training: LocalTraining,
        algorithm: Algorithm,
        held: ServerState,
        seed: int,
        steps_per_round: int,
    ):
        # The server does not run the clients' programs: any sums will do.
        sums = {"loss": (jnp.float32(0.0), jnp.float32(0.0))}
        self._programs = build_programs(RoundSettings(training, algorithm, Layout(1, 1)), sums)
        self._read = leaves_read(training, algorithm, held.parameters)
        self._seed, self._steps = seed, steps_per_round

    def round(
        self, held: ServerState, nodes: Nodes, invited: list[str], round_index: int, population: int | None
    ) -> simulation.RoundResult:
        """Send the model to the invited clients and step the server; `held` is consumed."""
        if len(set(invited)) < len(invited):
            raise FederationError(
                f"round {round_index + 1} invites a client twice: draw clients without replacement"
            )
        programs = self._programs
        held = replicate(held, programs.replicated)
        sent = send(programs, held, self._seed, round_index)
        about = {"round": round_index, "first-step": round_index * self._steps, "seed": self._seed}
        request = {
            "parameters": pack(sent.parameters),
            "objective-state": pack(held.objective_state),
            "algorithm-state": pack(select(sent.state, self._read)),
            "round": import_flwr().app.ConfigRecord(about),
        }
        like = (jax.eval_shape(programs.message, sent, held.objective_state), held.objective_state)
        answers, dropped, late = nodes.ask(invited, request, like, round_index)
        if not answers:
            raise FederationError(f"round {round_index + 1}: none of {len(invited)} clients answered")
        everyone = population or len(nodes.names())
        outcome = _step(programs, held, answers, everyone, self._seed, round_index)
        return simulation.to_result(outcome, round_index, Attendance(outcome.clients, dropped, late))


def _step(
    programs: Programs,
    held: ServerState,
    answers: dict[str, Answer],
    population: int,
    seed: int,
    round_index: int,
) -> RoundOutcome:
    """Step the server with the answers of a round."""
    clients = sorted(answers, key=lambda name: (-answers[name].steps, name))
    rows = [answers[name] for name in clients]
    reports = jax.tree.map(lambda *leaves: np.stack(leaves), *[row.report for row in rows])
    messages, changes = jax.tree.map(
        lambda *leaves: jnp.asarray(np.stack(leaves)), *[(row.message, row.change) for row in rows]
    )
    kept = messages if programs.streamed else ()
    like = jax.tree.map(lambda leaf: leaf[0], (kept, changes))
    sums = {"loss": (np.float32(0.0), np.float32(0.0))}
    for row in rows:
        for name, pair in row.sums.items():
            before = sums.get(name, (np.float32(0.0), np.float32(0.0)))
            sums[name] = (before[0] + pair[0], before[1] + pair[1])
    log_weights = jnp.asarray(reports.log_weight)
    totals = Totals(
        aggregation.add(aggregation.empty(like), (kept, changes), log_weights),
        sums,
        jnp.float32((reports.verdict == Verdict.ACCEPTED).sum()),
    )
    totals = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], totals)  # one lane
    stacked = [] if programs.streamed else [(messages, log_weights)]
    new, sums, norm = step_server(
        programs, held, totals, stacked, population, seed=seed, round_index=round_index
    )
    return RoundOutcome(
        server=new,
        sums=sums,
        mean_update_norm=norm,
        clients=clients,
        reports=reports,
        steps=sum(row.steps for row in rows),
        step_slots=sum(row.step_slots for row in rows),
    )
