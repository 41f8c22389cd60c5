"""One round: a host loop over groups of clients and blocks of steps."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fed.algorithm import Server
from fed.cohort import ClientReport, Folded, Shared, Totals, Verdict
from fed.engine.blocks import (
    Engine,
    GroupBlock,
    data_weights,
    group_blocks,
    kept_states,
    plan_cohort,
    prefetch,
)
from fed.engine.client_states import ClientStates
from fed.engine.programs import Programs
from fed.keys import broadcast_key, noise_key, round_key
from fed.placement import fetch, model_shardings, replicate
from fed.protocols import ClientSource, FederationError, PyTree
from fed.server import ServerState

BLOCKS_UNDER_WAY = 2


class ClientModels(NamedTuple):
    """The models of a round before they were averaged: (clients + 1) models with their states, on the host.

    Attributes:
        before: (parameters, objective state) that every client started from; NumPy arrays.
        after: (parameters, objective state) of the clients after their local training; NumPy leaves
            [client, ...] in the order of the outcome's `clients`.
    """

    before: tuple[PyTree, PyTree]
    after: tuple[PyTree, PyTree]

    def of(self, client: int) -> tuple[PyTree, PyTree]:
        """Select (parameters, objective state) of one client, by its place in `clients`."""
        return jax.tree.map(lambda leaf: leaf[client], self.after)

    def updates(self) -> PyTree:
        """Subtract the initial from the local parameters: leaves [client, ...]; as much memory again."""
        return jax.tree.map(lambda after, before: after - before[None], self.after[0], self.before[0])


class RoundOutcome(NamedTuple):
    """A finished round; sums and state are still on the device.

    Attributes:
        server: the state after the round.
        sums: totals over all accepted clients.
        mean_update_norm: norm of the update that the server got.
        clients: the clients that took part.
        reports: NumPy arrays aligned with `clients`.
        steps: local steps done.
        step_slots: local steps computed or reserved, padding included.
        models: the clients' models, if the round was asked to keep them.
    """

    server: ServerState
    sums: PyTree
    mean_update_norm: jax.Array
    clients: list[str]
    reports: ClientReport
    steps: int
    step_slots: int
    models: ClientModels | None = None


class TrainedCohort(NamedTuple):
    """A cohort after its training, still on the device.

    Attributes:
        clients: in the order of the groups.
        steps, step_slots: as of `RoundOutcome`.
        totals: over the clients of each lane.
        reports, models: one per group; models only if they are kept.
        stacked: messages and log weights of each group, if the algorithm combines messages itself.
    """

    clients: list[str]
    steps: int
    step_slots: int
    totals: Totals
    reports: list[ClientReport]
    stacked: list[tuple[PyTree, jax.Array]]
    models: list[tuple[PyTree, PyTree]]


def run_round(
    engine: Engine,
    server: ServerState,
    source: ClientSource,
    cohort: Sequence[str],
    *,
    seed: int,
    round_index: int,
    first_step: int,
    keep_models: bool = False,
) -> RoundOutcome:
    """Train a cohort and step the server. Nothing is fetched before the last step is under way.

    Args:
        engine: from `simulation.prepare` or `simulation.build_engine`.
        server: the state before the round; it is consumed.
        source: the clients' data.
        cohort: client ids; their order changes nothing but the order of summation. A client without
            steps is reported as NOTHING_LEARNT. A client that is there twice trains and counts twice, and
            is an error where clients keep a state. An empty cohort changes the round's number alone, and
            under privacy adds the noise.
        seed: the seed of the round's keys.
        round_index: from 0.
        first_step: global step of the round's first local step.
        keep_models: copy the clients' models to the host. The result is the same; each group is waited for.

    Raises:
        FederationError: a client has fewer batches than steps, or steps and a weight that is not positive,
            or is there twice while clients keep a state.
    """
    programs, keys = engine.programs, {"seed": seed, "round_index": round_index}
    server = replicate(server, model_shardings(programs.mesh, server))
    sent = send(programs, server, **keys)
    model = (sent, server.objective_state)
    before = None
    if keep_models:
        before = jax.tree.map(lambda leaf: fetch(jnp.copy(leaf)), (sent.parameters, model[1]))
    trained = train_cohort(
        engine, model, source, cohort, first_step=first_step, keep_models=keep_models, **keys
    )
    count, stacked = len(trained.clients), trained.stacked
    if not programs.streamed and not stacked:
        stacked = [_no_messages(engine, *model)]
    stacked = _padded(stacked) if stacked else stacked
    population = engine.population or count
    new_server, sums, norm = step_server(programs, server, trained.totals, stacked, population, **keys)
    empty = np.zeros(0, np.float32)
    reports = [fetch(report) for report in trained.reports]
    reports = reports or [ClientReport._make((empty, empty, empty.astype(np.int32), empty, empty, empty))]
    models = trained.models
    return RoundOutcome(
        server=new_server,
        sums=sums,
        mean_update_norm=norm,
        clients=trained.clients,
        reports=_concatenate(reports, count),
        steps=trained.steps,
        step_slots=trained.step_slots,
        models=ClientModels(before, _concatenate(models, count)) if before and models else None,
    )


def send(programs: Programs, server: ServerState, seed: int, round_index: int) -> Server:
    """Choose the parameters that clients begin a round with, beside the algorithm's state."""
    # The last program consumes the server's state and would overwrite a view of it.
    sent = Server(server.parameters, server.optimizer_state)
    if programs.broadcast is None:
        return sent
    drawn = replicate(broadcast_key(seed, round_index), programs.replicated)
    return sent._replace(parameters=programs.broadcast(sent, drawn))


def train_cohort(
    engine: Engine,
    model: tuple[Server, PyTree],
    source: ClientSource,
    cohort: Sequence[str],
    *,
    seed: int,
    round_index: int,
    first_step: int,
    keep_models: bool = False,
) -> TrainedCohort:
    """Train the clients of a round, without a step of the server.

    Args:
        engine, source, cohort, seed, round_index, first_step, keep_models: as of `run_round`.
        model: the model that was sent, the algorithm's state beside it, and the objective's state.

    Raises:
        FederationError: as `run_round`.
    """
    plans = plan_cohort(source, cohort, round_index)
    if engine.states is not None and len(plans) < len(cohort):
        raise FederationError(
            f"round {round_index + 1} has a client twice, and this algorithm's clients keep a state: draw "
            "clients without replacement"
        )
    # Clients with similar numbers of steps share a group, so that few steps are padding.
    ordered = sorted(cohort, key=lambda client_id: (-plans[client_id].num_steps, client_id))
    key = replicate(round_key(seed, round_index), engine.programs.replicated)
    first = replicate(np.int32(first_step), engine.programs.replicated)
    blocks = prefetch(group_blocks(engine, source, ordered, plans, round_index))
    trained = _train_groups(engine, model, blocks, key, first, round_index, keep_models)
    return trained._replace(clients=ordered, steps=sum(plans[client_id].num_steps for client_id in ordered))


def step_server(
    programs: Programs,
    server: ServerState,
    totals: Totals,
    stacked: list[tuple[PyTree, jax.Array]],
    population: int,
    *,
    seed: int,
    round_index: int,
) -> tuple[ServerState, PyTree, jax.Array]:
    """Combine a round's messages and step the server: (new state, sums, norm of the combined update).

    Args:
        programs: of the run.
        server: the state before the round; it is consumed.
        totals, stacked: as of `TrainedCohort`.
        population: all clients that there are.
        seed, round_index: as of `run_round`.
    """
    noise = replicate(noise_key(seed, round_index), programs.replicated)
    return programs.step(
        server, totals, stacked, noise, replicate(np.float32(population), programs.replicated)
    )


def _train_groups(
    engine: Engine,
    model: tuple[Server, PyTree],
    blocks: Iterator[GroupBlock],
    key: jax.Array,
    first_step: jax.Array,
    round_index: int,
    keep_models: bool,
) -> TrainedCohort:
    """Train one group after the other and accumulate their messages."""
    programs = engine.programs
    shared = Shared(model[0], engine.data)
    totals = programs.empty(*model)
    reports: list[ClientReport] = []
    stacked: list[tuple[PyTree, jax.Array]] = []
    models: list[tuple[PyTree, PyTree]] = []
    waiting: list[tuple[list[str], Folded]] = []  # groups whose clients' states are still on the device
    state, slots = None, 0
    under_way: deque[jax.Array] = deque()
    for item in blocks:
        slots += item.block.valid.size
        inputs = (item.block, item.numbers, key, first_step, shared)
        folded = None
        if item.first and item.last:
            weights, kept = data_weights(engine, item.plans), kept_states(engine, item.members)
            totals, folded, state = programs.whole(totals, *model, kept, *inputs, weights)
        else:
            if item.first:
                state = programs.start(*model, kept_states(engine, item.members))
            state = programs.block(state, *inputs)
            if item.last:
                weights = data_weights(engine, item.plans)
                totals, folded = programs.fold(totals, state, *model, weights, item.numbers, key)
        # A block stays in memory until it has run: hand over only a few ahead.
        under_way.append(state.last_loss[1] + 0.0)
        if len(under_way) > BLOCKS_UNDER_WAY:
            under_way.popleft().block_until_ready()
        if folded is not None:
            reports.append(folded.report)
            if not programs.streamed:
                stacked.append((folded.messages, folded.report.log_weight))
            if keep_models:
                models.append(fetch((state.parameters, state.objective_state)))
            state = None  # frees it before the next group's state is made
            if engine.states is not None:
                waiting.append((item.members, folded))
                if len(waiting) > 1:
                    _put_back(engine.states, *waiting.pop(0), round_index)
    for members, folded in waiting:
        _put_back(engine.states, members, folded, round_index)
    return TrainedCohort([], 0, slots, totals, reports, stacked, models)


def _put_back(states: ClientStates | None, members: list[str], folded: Folded, round_index: int) -> None:
    """Replace the states of the clients that counted."""
    assert states is not None
    kept, verdicts = fetch((folded.kept, folded.report.verdict))
    rows = np.flatnonzero(verdicts[: len(members)] == Verdict.ACCEPTED)
    states.put([members[row] for row in rows], jax.tree.map(lambda leaf: leaf[rows], kept), round_index + 1)


def _padded(stacked: list[tuple[PyTree, jax.Array]]) -> list[tuple[PyTree, jax.Array]]:
    """Add empty groups up to a power of two, so that cohorts of many sizes share few compiled programs."""
    wanted = 1 << (len(stacked) - 1).bit_length()
    messages, log_weights = stacked[-1]
    empty = (jax.tree.map(jnp.zeros_like, messages), jnp.full_like(log_weights, -jnp.inf))
    return stacked + [empty] * (wanted - len(stacked))


def _no_messages(engine: Engine, sent: Server, objective_state: PyTree) -> tuple[PyTree, jax.Array]:
    """Make the messages of a round without clients: one of zeros that does not count."""
    found = jax.eval_shape(engine.programs.message, sent, objective_state)
    zeros = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape), leaf.dtype), found)
    return replicate((zeros, jnp.full(1, -jnp.inf)), engine.programs.replicated)


def _concatenate(groups: list[Any], clients: int) -> Any:
    """Join the leaves [client, ...] of all groups, without the padded clients of the last group."""
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(x) for x in leaves])[:clients], *groups)
