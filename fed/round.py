"""One round: a host loop over groups of clients and blocks of steps."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fed.client import Block
from fed.cohort import ClientReport, Layout, Programs, Shared
from fed.keys import client_number, noise_key, round_key
from fed.placement import fetch, model_shardings, put, replicate
from fed.protocols import ClientPlan, ClientSource, FederationError, PyTree
from fed.server import ServerState

BLOCK_BYTES = 64 * 2**20  # of batches, per group
BLOCKS_UNDER_WAY = 2


class Engine(NamedTuple):
    """The programs of a run and how clients and steps are laid out on them.

    `block_steps` is chosen once for a run, so that the block program compiles once whatever
    clients a round draws; `batch` gives the shapes and dtypes of every batch; `data` are those of
    `protocols.Resident`, on the devices.
    """

    programs: Programs
    layout: Layout
    block_steps: int
    batch: PyTree
    data: PyTree = ()


class ClientModels(NamedTuple):
    """The models of a round before they were averaged: NumPy arrays on the host.

    Takes (clients + 1) times the memory of one model and its state, on the host alone.

    Attributes:
        before: (parameters, objective state) that every client started from.
        after: (parameters, objective state) of the clients after their local training, leaves
            [client, ...] in the order of the outcome's `clients`.
    """

    before: tuple[PyTree, PyTree]
    after: tuple[PyTree, PyTree]

    def of(self, client: int) -> tuple[PyTree, PyTree]:
        """(parameters, objective state) of one client, by its place in `clients`."""
        return jax.tree.map(lambda leaf: leaf[client], self.after)

    def updates(self) -> PyTree:
        """Local minus initial parameters: leaves [client, ...]; as much memory again."""
        return jax.tree.map(lambda after, before: after - before[None], self.after[0], self.before[0])


class RoundOutcome(NamedTuple):
    """A finished round; sums and state are still on the device.

    `reports` are NumPy arrays aligned with `clients`; `step_slots` counts every step computed or
    reserved, padding included; `models` are there if they were asked for.
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
    """Steps per block: as few blocks as the memory bound allows, of equal size."""
    limit = max(1, BLOCK_BYTES // max(1, batch_bytes * layout.group_size))
    blocks = math.ceil(max_steps / limit)
    return math.ceil(max_steps / blocks)


class _GroupBlock(NamedTuple):
    """One block for a group, on the device; `last` where it ends the group's round."""

    first: bool
    last: bool
    plans: list[ClientPlan]
    block: Block
    numbers: jax.Array


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
        cohort: client ids; their order changes nothing but the order of summation. Without any, all
            that changes is the round's number, and under privacy what its noise does.
        first_step: global step of the round's first local step.
        keep_models: copy the clients' models to the host (ClientModels) before they are dropped. The
            same programs run on the same values, so the round's result is the same; each group is
            waited for.

    Raises:
        FederationError: a client without steps, or one with fewer batches than steps.
    """
    plans = {client_id: source.plan(client_id, round_index) for client_id in cohort}
    for client_id, plan in plans.items():
        if plan.num_steps < 1 or not plan.weight > 0:
            raise FederationError(
                f"client {client_id} has {plan.num_steps} steps and weight {plan.weight}: "
                "both must be positive"
            )
    programs, layout = engine.programs, engine.layout
    # Clients of like length share a group, so that few steps are padding.
    ordered = sorted(cohort, key=lambda client_id: (-plans[client_id].num_steps, client_id))
    key = replicate(round_key(seed, round_index), programs.replicated)
    first = replicate(np.int32(first_step), programs.replicated)
    server = replicate(server, model_shardings(programs.mesh, server))
    parameters, objective_state = server.parameters, server.objective_state
    # The last program consumes the server's state; a view of it would be overwritten.
    before = jax.tree.map(_copy_to_host, (parameters, objective_state)) if keep_models else None
    kept: list[tuple[PyTree, PyTree]] = []
    shared = Shared(parameters, engine.data)
    accumulator = programs.empty(parameters, objective_state)
    reports: list[ClientReport] = []
    state, slots = None, 0
    under_way: deque[jax.Array] = deque()
    for item in _prefetch(_group_blocks(engine, source, ordered, plans, round_index)):
        slots += item.block.valid.size
        report = None
        if item.last:
            weights = np.ones(layout.group_size, np.float32)
            weights[: len(item.plans)] = [plan.weight for plan in item.plans]
            weights = put(weights[programs.rows], programs.by_client)
        if item.first and item.last:
            accumulator, report, state = programs.whole(
                accumulator,
                parameters,
                objective_state,
                item.block,
                item.numbers,
                key,
                first,
                shared,
                weights,
            )
        else:
            if item.first:
                state = programs.start(parameters, objective_state)
            state = programs.block(state, item.block, item.numbers, key, first, shared)
            if item.last:
                accumulator, report = programs.fold(accumulator, state, parameters, objective_state, weights)
        # Blocks stay in memory until they have run: never hand over more than a few ahead.
        under_way.append(state.last_loss[1] + 0.0)
        if len(under_way) > BLOCKS_UNDER_WAY:
            under_way.popleft().block_until_ready()
        if report is not None:
            reports.append(report)
            if keep_models:
                kept.append(fetch((state.parameters, state.objective_state)))
            state = None  # else the next group's state would stand beside it
    noise = replicate(noise_key(seed, round_index), programs.replicated)
    new_server, sums, norm = programs.step(server, accumulator, noise)
    return RoundOutcome(
        server=new_server,
        sums=sums,
        mean_update_norm=norm,
        clients=ordered,
        reports=_concatenate([fetch(report) for report in reports], len(ordered)) if reports else no_report(),
        steps=sum(plan.num_steps for plan in plans.values()),
        step_slots=slots,
        models=ClientModels(before, _concatenate(kept, len(ordered))) if before and kept else None,
    )


def no_report() -> ClientReport:
    """The reports of a round without clients."""
    empty = np.zeros(0, np.float32)
    return ClientReport._make((empty, empty, np.zeros(0, np.int32), empty, empty, empty))


def _copy_to_host(leaf: jax.Array) -> np.ndarray:
    return fetch(jnp.copy(leaf))


def _group_blocks(
    engine: Engine,
    source: ClientSource,
    ordered: list[str],
    plans: dict[str, ClientPlan],
    round_index: int,
) -> Iterator[_GroupBlock]:
    """Read, stack and move the blocks of every group, in order; of the clients whose lanes are here."""
    programs, layout, block_steps = engine.programs, engine.layout, engine.block_steps
    for start in range(0, len(ordered), layout.group_size):
        members = ordered[start : start + layout.group_size]
        group_plans = [plans[client_id] for client_id in members]
        streams = {
            client_id: source.client_batches(client_id, round_index) for client_id in members[programs.rows]
        }
        longest = max(plan.num_steps for plan in group_plans)
        numbers = np.zeros(layout.group_size, np.uint32)
        numbers[: len(members)] = [client_number(client_id) for client_id in members]
        numbers = put(numbers[programs.rows], programs.by_client)
        done = 0
        while done < longest:
            block = _stack_block(streams, group_plans[programs.rows], engine, done)
            yield _GroupBlock(
                first=done == 0,
                last=done + block_steps >= longest,
                plans=group_plans,
                block=put(block, programs.by_client),
                numbers=numbers,
            )
            done += block_steps


def _stack_block(
    streams: dict[str, Iterator[PyTree]],
    plans: list[ClientPlan],
    engine: Engine,
    done: int,
) -> Block:
    """The next batches of this process's clients of a group as one Block of NumPy arrays."""
    rows, block_steps = engine.programs.rows, engine.block_steps
    shape = (rows.stop - rows.start, block_steps)
    valid, reported = np.zeros(shape, bool), np.zeros(shape, bool)
    local_step = np.broadcast_to(np.arange(done, done + block_steps, dtype=np.int32), shape)
    batches = jax.tree.map(lambda like: np.zeros(shape + like.shape, like.dtype), engine.batch)
    for row, ((client_id, stream), plan) in enumerate(zip(streams.items(), plans, strict=True)):
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
