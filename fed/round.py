"""One round: a host loop over groups of clients and blocks of steps."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fed.algorithm import Server
from fed.client import Block
from fed.client_states import ClientStates
from fed.cohort import ClientReport, Folded, Layout, Shared, Totals, Verdict
from fed.keys import broadcast_key, client_number, noise_key, round_key
from fed.placement import fetch, model_shardings, put, replicate
from fed.programs import Programs
from fed.protocols import ClientPlan, ClientSource, FederationError, PyTree
from fed.server import ServerState

BLOCK_BYTES = 64 * 2**20  # of batches, per group
BLOCKS_UNDER_WAY = 2


class Engine(NamedTuple):
    """The programs of a run, and how clients and steps are laid out on them."""

    programs: Programs
    layout: Layout
    block_steps: int  # one number for a whole run: the block program compiles once
    batch: PyTree  # shapes and dtypes of every batch
    population: int = 0  # all clients that there are; 0 takes those of each round for all
    data: PyTree = ()  # `protocols.Resident.data`, on the devices
    states: ClientStates | None = None  # None where clients keep nothing


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


def choose_block_steps(max_steps: int, batch_bytes: int, layout: Layout) -> int:
    """Choose the steps per block: as few blocks as the memory bound allows, of equal size."""
    limit = max(1, BLOCK_BYTES // max(1, batch_bytes * layout.group_size))
    blocks = math.ceil(max_steps / limit)
    return math.ceil(max_steps / blocks)


class _GroupBlock(NamedTuple):
    """One block for a group, on the device; `last` where it ends the group's round."""

    first: bool
    last: bool
    members: list[str]
    plans: list[ClientPlan]
    block: Block
    numbers: jax.Array


class _Trained(NamedTuple):
    """All groups of a round after their training."""

    totals: Totals
    reports: list[ClientReport]  # one per group
    stacked: list[tuple[PyTree, jax.Array]]  # messages and log weights of each group, if they are kept
    models: list[tuple[PyTree, PyTree]]  # one per group, if they are kept
    step_slots: int


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
    plans = _plans(source, cohort, round_index)
    if engine.states is not None and len(plans) < len(cohort):
        raise FederationError(
            f"round {round_index + 1} has a client twice, and this algorithm's clients keep a state: draw "
            "clients without replacement"
        )
    programs = engine.programs
    # Clients with similar numbers of steps share a group, so that few steps are padding.
    ordered = sorted(cohort, key=lambda client_id: (-plans[client_id].num_steps, client_id))
    key = replicate(round_key(seed, round_index), programs.replicated)
    first = replicate(np.int32(first_step), programs.replicated)
    server = replicate(server, model_shardings(programs.mesh, server))
    # The last program consumes the server's state and would overwrite a view of it.
    sent = Server(server.parameters, server.optimizer_state)
    if programs.broadcast is not None:
        drawn = replicate(broadcast_key(seed, round_index), programs.replicated)
        sent = sent._replace(parameters=programs.broadcast(sent, drawn))
    model = (sent.parameters, server.objective_state)
    before = jax.tree.map(lambda leaf: fetch(jnp.copy(leaf)), model) if keep_models else None
    blocks = _prefetch(_group_blocks(engine, source, ordered, plans, round_index))
    trained = _train_groups(
        engine, (sent, server.objective_state), blocks, key, first, round_index, keep_models
    )
    noise = replicate(noise_key(seed, round_index), programs.replicated)
    population = replicate(np.float32(engine.population or len(ordered)), programs.replicated)
    stacked = trained.stacked
    if not programs.streamed and not stacked:
        stacked = [_no_messages(engine, sent, server.objective_state)]
    new_server, sums, norm = programs.step(server, trained.totals, stacked, noise, population)
    empty = np.zeros(0, np.float32)
    reports = [fetch(report) for report in trained.reports]
    reports = reports or [ClientReport._make((empty, empty, empty.astype(np.int32), empty, empty, empty))]
    models = trained.models
    return RoundOutcome(
        server=new_server,
        sums=sums,
        mean_update_norm=norm,
        clients=ordered,
        reports=_concatenate(reports, len(ordered)),
        steps=sum(plans[client_id].num_steps for client_id in ordered),
        step_slots=trained.step_slots,
        models=ClientModels(before, _concatenate(models, len(ordered))) if before and models else None,
    )


def _plans(source: ClientSource, cohort: Sequence[str], round_index: int) -> dict[str, ClientPlan]:
    """Each client's plan, checked."""
    plans = {client_id: source.plan(client_id, round_index) for client_id in cohort}
    for client_id, plan in plans.items():
        if plan.num_steps < 0 or (plan.num_steps > 0 and not plan.weight > 0):
            raise FederationError(
                f"client {client_id} has {plan.num_steps} steps and weight {plan.weight}: steps must not be "
                "negative, and the weight of a client with steps must be positive"
            )
    return plans


def _train_groups(
    engine: Engine,
    model: tuple[Server, PyTree],
    blocks: Iterator[_GroupBlock],
    key: jax.Array,
    first_step: jax.Array,
    round_index: int,
    keep_models: bool,
) -> _Trained:
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
            weights, kept = _data_weights(engine, item.plans), _kept(engine, item.members)
            totals, folded, state = programs.whole(totals, *model, kept, *inputs, weights)
        else:
            if item.first:
                state = programs.start(*model, _kept(engine, item.members))
            state = programs.block(state, *inputs)
            if item.last:
                weights = _data_weights(engine, item.plans)
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
    return _Trained(totals, reports, stacked, models, slots)


def _kept(engine: Engine, members: list[str]) -> PyTree:
    """A group's client states, on the devices; those of new clients in the places that stay empty."""
    if engine.states is None:
        return ()
    rows = [*members, *[""] * (engine.layout.group_size - len(members))][engine.programs.rows]
    return put(engine.states.take(rows), engine.programs.by_client)


def _put_back(states: ClientStates | None, members: list[str], folded: Folded, round_index: int) -> None:
    """Replace the states of the clients that counted."""
    assert states is not None
    kept, verdicts = fetch((folded.kept, folded.report.verdict))
    rows = np.flatnonzero(verdicts[: len(members)] == Verdict.ACCEPTED)
    states.put([members[row] for row in rows], jax.tree.map(lambda leaf: leaf[rows], kept), round_index + 1)


def _no_messages(engine: Engine, sent: Server, objective_state: PyTree) -> tuple[PyTree, jax.Array]:
    """The messages of a round without clients: one of zeros that does not count."""
    found = jax.eval_shape(engine.programs.message, sent, objective_state)
    zeros = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape), leaf.dtype), found)
    return replicate((zeros, jnp.full(1, -jnp.inf)), engine.programs.replicated)


def _data_weights(engine: Engine, plans: list[ClientPlan]) -> jax.Array:
    """A group's weights under FedAvg, on the devices; 1 for the padding of the last group."""
    weights = np.ones(engine.layout.group_size, np.float32)
    weights[: len(plans)] = [plan.weight for plan in plans]
    return put(weights[engine.programs.rows], engine.programs.by_client)


def _group_blocks(
    engine: Engine,
    source: ClientSource,
    ordered: list[str],
    plans: dict[str, ClientPlan],
    round_index: int,
) -> Iterator[_GroupBlock]:
    """Read, stack and move the blocks of every group in order, for the clients whose lanes are here."""
    programs, layout, block_steps = engine.programs, engine.layout, engine.block_steps
    for start in range(0, len(ordered), layout.group_size):
        members = ordered[start : start + layout.group_size]
        group_plans = [plans[client_id] for client_id in members]
        # By place, as a client may be there twice.
        streams = [
            (client_id, plans[client_id], source.client_batches(client_id, round_index))
            for client_id in members[programs.rows]
            if plans[client_id].num_steps > 0
        ]
        longest = max(1, *(plan.num_steps for plan in group_plans))
        numbers = np.zeros(layout.group_size, np.uint32)
        numbers[: len(members)] = [client_number(client_id) for client_id in members]
        numbers = put(numbers[programs.rows], programs.by_client)
        done = 0
        while done < longest:
            block = _stack_block(streams, engine, done)
            yield _GroupBlock(
                first=done == 0,
                last=done + block_steps >= longest,
                members=members,
                plans=group_plans,
                block=put(block, programs.by_client),
                numbers=numbers,
            )
            done += block_steps


def _stack_block(streams: list[tuple[str, ClientPlan, Iterator[PyTree]]], engine: Engine, done: int) -> Block:
    """The next batches of this process's clients of a group as one Block of NumPy arrays.

    Clients without steps come last in a group, so that every stream is in its row.
    """
    rows, block_steps = engine.programs.rows, engine.block_steps
    shape = (rows.stop - rows.start, block_steps)
    valid, reported = np.zeros(shape, bool), np.zeros(shape, bool)
    local_step = np.broadcast_to(np.arange(done, done + block_steps, dtype=np.int32), shape)
    batches = jax.tree.map(lambda like: np.zeros(shape + like.shape, like.dtype), engine.batch)
    for row, (client_id, plan, stream) in enumerate(streams):
        for column in range(min(block_steps, plan.num_steps - done)):
            batch = next(stream, None)
            if batch is None:
                raise FederationError(
                    f"client {client_id} planned {plan.num_steps} steps and gave {done + column} batches"
                )
            for target, leaf in zip(jax.tree.leaves(batches), jax.tree.leaves(batch), strict=True):
                if target.shape[2:] != leaf.shape:
                    raise FederationError(
                        f"batches of one round must share a shape: {target.shape[2:]} and {leaf.shape}"
                    )
                target[row, column] = leaf
            valid[row, column] = True
            reported[row, column] = done + column >= plan.loss_from_step
    return Block._make((batches, valid, reported, local_step))


def _prefetch(items: Iterator[_GroupBlock]) -> Iterator[_GroupBlock]:
    """Read one block ahead on a thread while the device works."""
    with ThreadPoolExecutor(1) as pool:
        pending: Future = pool.submit(next, items, None)
        while (item := pending.result()) is not None:
            pending = pool.submit(next, items, None)
            yield item


def _concatenate(groups: list[Any], clients: int) -> Any:
    """Leaves [client, ...] of all groups as one, without the padded clients of the last group."""
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(x) for x in leaves])[:clients], *groups)
