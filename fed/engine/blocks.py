"""Batches of a round, stacked into blocks of steps for groups of clients, and read one block ahead."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from fed.client import Block
from fed.cohort import Layout
from fed.engine.client_states import ClientStates
from fed.engine.programs import Programs
from fed.keys import client_number
from fed.placement import put
from fed.protocols import ClientPlan, ClientSource, FederationError, PyTree

BLOCK_BYTES = 64 * 2**20  # the batches of a group take at most this much


class Engine(NamedTuple):
    """The programs of a run, and how clients and steps are laid out on them."""

    programs: Programs
    layout: Layout
    block_steps: int  # one number for a whole run: the block program compiles once
    batch: PyTree  # shapes and dtypes of every batch
    population: int = 0  # all clients that there are; 0 takes those of each round for all
    data: PyTree = ()  # `protocols.Resident.data`, on the devices
    states: ClientStates | None = None  # None where clients keep nothing


def plan_cohort(source: ClientSource, cohort: Sequence[str], round_index: int) -> dict[str, ClientPlan]:
    """Ask for each client's plan, and check it."""
    plans = {client_id: source.plan(client_id, round_index) for client_id in cohort}
    for client_id, plan in plans.items():
        if plan.num_steps < 0 or (plan.num_steps > 0 and not plan.weight > 0):
            raise FederationError(
                f"client {client_id} has {plan.num_steps} steps and weight {plan.weight}: steps must not be "
                "negative, and the weight of a client with steps must be positive"
            )
    return plans


class GroupBlock(NamedTuple):
    """One block for a group, on the device; `last` where it ends the group's round."""

    first: bool
    last: bool
    members: list[str]
    plans: list[ClientPlan]
    block: Block
    numbers: jax.Array


def choose_block_steps(max_steps: int, batch_bytes: int, layout: Layout) -> int:
    """Choose the steps per block: as few blocks as the memory bound allows, of equal size."""
    limit = max(1, BLOCK_BYTES // max(1, batch_bytes * layout.group_size))
    blocks = math.ceil(max_steps / limit)
    return math.ceil(max_steps / blocks)


def group_blocks(
    engine: Engine,
    source: ClientSource,
    ordered: list[str],
    plans: dict[str, ClientPlan],
    round_index: int,
) -> Iterator[GroupBlock]:
    """Read, stack and move the blocks of every group in order, for the clients whose lanes are here."""
    programs, layout, block_steps = engine.programs, engine.layout, engine.block_steps
    for start in range(0, len(ordered), layout.group_size):
        members = ordered[start : start + layout.group_size]
        group_plans = [plans[client_id] for client_id in members]
        # Streams go by place, because a client may be there twice.
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
            yield GroupBlock(
                first=done == 0,
                last=done + block_steps >= longest,
                members=members,
                plans=group_plans,
                block=put(block, programs.by_client),
                numbers=numbers,
            )
            done += block_steps


def data_weights(engine: Engine, plans: list[ClientPlan]) -> jax.Array:
    """Put a group's weights under FedAvg on the devices; the padding of the last group gets 1."""
    weights = np.ones(engine.layout.group_size, np.float32)
    weights[: len(plans)] = [plan.weight for plan in plans]
    return put(weights[engine.programs.rows], engine.programs.by_client)


def kept_states(engine: Engine, members: list[str]) -> PyTree:
    """Put a group's client states on the devices; empty places get the state of a new client."""
    if engine.states is None:
        return ()
    rows = [*members, *[""] * (engine.layout.group_size - len(members))][engine.programs.rows]
    return put(engine.states.take(rows), engine.programs.by_client)


def _stack_block(streams: list[tuple[str, ClientPlan, Iterator[PyTree]]], engine: Engine, done: int) -> Block:
    """Stack the next batches of this process's clients of a group into one Block of NumPy arrays.

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


def prefetch(items: Iterator[GroupBlock]) -> Iterator[GroupBlock]:
    """Read one block ahead on a thread while the device works."""
    with ThreadPoolExecutor(1) as pool:
        pending: Future = pool.submit(next, items, None)
        while (item := pending.result()) is not None:
            pending = pool.submit(next, items, None)
            yield item
