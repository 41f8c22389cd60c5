"""The host loop over rounds: sample, feed, step. Yields results; prints and writes nothing."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
import optax

from fed import round as rounds
from fed.aggregation import LogWeight
from fed.client import LocalTraining
from fed.cohort import Layout, Programs, build_programs
from fed.keys import round_key
from fed.protocols import ClientSource, FederationError, Objective, PyTree
from fed.sampling import Sampler
from fed.server import ServerState


class RoundResult(NamedTuple):
    """A finished round on the host.

    Attributes:
        round_index: rounds finished, counting this one.
        server: the state after the round, on the device; the next round consumes it.
        sums: totals over all accepted clients.
        clients, losses, weights: per client; weights sum to one, zero where left out.
        skipped: clients whose update was not finite.
        update_norms: norm of each client's update; `mean_update_norm` of their weighted mean.
        steps: local steps done; `step_slots` those computed or reserved, padding included.
    """

    round_index: int
    server: ServerState
    sums: PyTree
    clients: list[str]
    losses: np.ndarray
    weights: np.ndarray
    skipped: list[str]
    update_norms: np.ndarray
    mean_update_norm: float
    steps: int
    step_slots: int


class Simulation(NamedTuple):
    """A federated run: how clients train, how updates are combined, who takes part."""

    training: LocalTraining
    rule: LogWeight
    server_optimizer: optax.GradientTransformation
    source: ClientSource
    sampler: Sampler
    layout: Layout
    seed: int
    steps_per_round: int  # nominal local steps, by which schedules advance
    block_steps: int | None = None


def abstract_sums(objective: Objective, parameters: PyTree, state: PyTree, batch: PyTree) -> PyTree:
    """Shapes of the sums that one step returns."""
    return jax.eval_shape(objective.value_and_grad, parameters, state, batch, jax.random.key(0), np.int32(0))[
        2
    ]


def prepare(simulation: Simulation, server: ServerState) -> Programs:
    """Build the programs, from the shape of some client's first batch."""
    client_ids = simulation.source.client_ids()
    if not client_ids:
        raise FederationError("there are no clients")
    batch = next(simulation.source.client_batches(client_ids[0], 0))
    return build_programs(
        simulation.training,
        simulation.rule,
        simulation.server_optimizer,
        simulation.layout,
        abstract_sums(simulation.training.objective, server.parameters, server.objective_state, batch),
    )


def run(simulation: Simulation, server: ServerState, num_rounds: int) -> Iterator[RoundResult]:
    """Rounds from the server's own round count up to `num_rounds`.

    The incoming state is consumed (its buffers are donated).
    """
    programs = prepare(simulation, server)
    for round_index in range(int(server.round_index), num_rounds):
        outcome = rounds.run_round(
            programs,
            simulation.layout,
            server,
            simulation.source,
            simulation.sampler(round_index),
            seed=simulation.seed,
            round_index=round_index,
            first_step=round_index * simulation.steps_per_round,
            block_steps=simulation.block_steps,
        )
        server = outcome.server
        yield to_result(outcome, round_index)


def to_result(outcome: rounds.RoundOutcome, round_index: int) -> RoundResult:
    """Fetch what a log needs of a finished round."""
    report = outcome.reports
    log_weights = np.asarray(report.log_weight, np.float64)
    weights = np.zeros_like(log_weights)
    if report.accepted.any():
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
    return RoundResult(
        round_index=round_index + 1,
        server=outcome.server,
        sums=jax.device_get(outcome.sums),
        clients=outcome.clients,
        losses=np.asarray(report.loss),
        weights=weights,
        skipped=[c for c, ok in zip(outcome.clients, report.accepted, strict=True) if not ok],
        update_norms=np.asarray(report.update_norm),
        mean_update_norm=float(outcome.mean_update_norm),
        steps=outcome.steps,
        step_slots=outcome.step_slots,
    )


def evaluation_key(seed: int) -> jax.Array:
    """The fixed key of all evaluations of a run."""
    return round_key(seed, 2**31 - 1)
