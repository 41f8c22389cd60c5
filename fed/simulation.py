"""The host loop over rounds: sample, feed, step. Yields results; prints and writes nothing."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
import optax

from fed.aggregation import LogWeight
from fed.attendance import Attend, Attendance, all_answer
from fed.client import LocalTraining
from fed.cohort import Layout, Verdict, build_programs
from fed.placement import fetch, replicate
from fed.privacy.noise import Privacy
from fed.protocols import ClientSource, FederationError, Objective, PyTree, Resident
from fed.round import ClientModels, Engine, RoundOutcome, choose_block_steps, run_round
from fed.sampling import Sampler
from fed.server import ServerState


class RoundResult(NamedTuple):
    """A finished round on the host.

    Attributes:
        round_index: rounds finished, counting this one.
        server: the state after the round, on the device; the next round consumes it.
        sums: totals over all accepted clients.
        clients, losses, weights: per client; a loss is the mean over the steps that the client's plan
            reports, which the rule of aggregation sees; weights sum to one, zero where left out.
        round_losses: per client, mean loss over all its local steps, as `sums` are.
        skipped: clients whose update was left out: not finite, too large, or from nothing learnt.
        too_large: those of them whose update was too large.
        dropped, late: clients that were asked and did not answer, or not in time; not in `clients`.
        clipped_share: mean share of a client's arrays that privacy scaled down.
        update_norms: norm of each client's update; `mean_update_norm` of their weighted mean.
        steps: local steps done; `step_slots` those computed or reserved, padding included.
        models: the clients' models before they were averaged, in the rounds that keep them.
    """

    round_index: int
    server: ServerState
    sums: PyTree
    clients: list[str]
    losses: np.ndarray
    round_losses: np.ndarray
    weights: np.ndarray
    skipped: list[str]
    too_large: list[str]
    dropped: list[str]
    late: list[str]
    clipped_share: float
    update_norms: np.ndarray
    mean_update_norm: float
    steps: int
    step_slots: int
    models: ClientModels | None = None


class Simulation(NamedTuple):
    """A federated run: how clients train, how updates are combined, who takes part.

    `keep_models` says by a round's index from 0 whether its result has the clients' models.
    """

    training: LocalTraining
    rule: LogWeight
    server_optimizer: optax.GradientTransformation
    source: ClientSource
    sampler: Sampler
    layout: Layout
    seed: int
    steps_per_round: int  # nominal local steps, by which schedules advance
    block_steps: int | None = None
    keep_models: Callable[[int], bool] = lambda round_index: False
    attend: Attend = all_answer
    max_update_norm: float = math.inf
    privacy: Privacy | None = None


def abstract_sums(objective: Objective, parameters: PyTree, state: PyTree, batch: PyTree) -> PyTree:
    """Shapes of the sums that one step returns."""
    return jax.eval_shape(objective.value_and_grad, parameters, state, batch, jax.random.key(0), np.int32(0))[
        2
    ]


def build_engine(
    training: LocalTraining,
    rule: LogWeight,
    server_optimizer: optax.GradientTransformation,
    layout: Layout,
    server: ServerState,
    batch: PyTree,
    max_steps: int,
    *,
    max_update_norm: float = math.inf,
    privacy: Privacy | None = None,
    resident: Resident | None = None,
) -> Engine:
    """Programs and block size for a run.

    Args:
        server: a state, for its shapes.
        batch: some client's batch, for its shapes and bytes.
        max_steps: most local steps that a client makes in a round, as far as known; only the block
            size follows from it.
        resident: data that stay on the devices, which the batches point at.
    """
    whole = batch if resident is None else jax.eval_shape(resident.read, resident.data, batch)
    sums = abstract_sums(training.objective, server.parameters, server.objective_state, whole)
    batch_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(batch))
    programs = build_programs(
        training,
        rule,
        server_optimizer,
        layout,
        sums,
        max_update_norm=max_update_norm,
        privacy=privacy,
        read=resident.read if resident else None,
    )
    return Engine(
        programs,
        layout,
        choose_block_steps(max_steps, batch_bytes, layout),
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch),
        replicate(resident.data, programs.replicated) if resident else (),
    )


def prepare(simulation: Simulation, server: ServerState) -> Engine:
    """The engine of a simulation, from the shape of some client's first batch.

    Raises:
        FederationError: there are no clients.
    """
    client_ids = simulation.source.client_ids()
    if not client_ids:
        raise FederationError("there are no clients")
    engine = build_engine(
        simulation.training,
        simulation.rule,
        simulation.server_optimizer,
        simulation.layout,
        server,
        next(simulation.source.client_batches(client_ids[0], 0)),
        simulation.steps_per_round,
        max_update_norm=simulation.max_update_norm,
        privacy=simulation.privacy,
        resident=getattr(simulation.source, "resident", None),
    )
    return engine._replace(block_steps=simulation.block_steps or engine.block_steps)


def run(simulation: Simulation, server: ServerState, num_rounds: int) -> Iterator[RoundResult]:
    """Rounds from the server's own round count up to `num_rounds`.

    The incoming state is consumed (its buffers are donated).

    Args:
        simulation: how clients train, who takes part, how updates are combined.
        server: of `server.init`, or a checkpoint's.
        num_rounds: length of the whole run, rounds before this call included.

    Yields:
        A result a round; its `server` is what the next round consumes, so copy what is to be kept.

    Raises:
        FederationError: no clients, a client without steps, or one with fewer batches than steps.
    """
    engine = prepare(simulation, server)
    for round_index in range(int(server.round_index), num_rounds):
        attendance = simulation.attend(round_index, simulation.sampler(round_index))
        outcome = run_round(
            engine,
            server,
            simulation.source,
            attendance.present,
            seed=simulation.seed,
            round_index=round_index,
            first_step=round_index * simulation.steps_per_round,
            keep_models=simulation.keep_models(round_index),
        )
        server = outcome.server
        yield to_result(outcome, round_index, attendance)


def to_result(outcome: RoundOutcome, round_index: int, attendance: Attendance | None = None) -> RoundResult:
    """Fetch what a log needs of a finished round."""
    report = outcome.reports
    accepted = report.verdict == Verdict.ACCEPTED
    log_weights = np.asarray(report.log_weight, np.float64)
    weights = np.zeros_like(log_weights)
    if accepted.any():
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
    return RoundResult(
        round_index=round_index + 1,
        server=outcome.server,
        sums=fetch(outcome.sums),
        clients=outcome.clients,
        losses=np.asarray(report.loss),
        round_losses=np.asarray(report.round_loss),
        weights=weights,
        skipped=[c for c, ok in zip(outcome.clients, accepted, strict=True) if not ok],
        too_large=[c for c, v in zip(outcome.clients, report.verdict, strict=True) if v == Verdict.TOO_LARGE],
        dropped=attendance.dropped if attendance else [],
        late=attendance.late if attendance else [],
        clipped_share=float(np.mean(report.clipped)) if len(report.clipped) else 0.0,
        update_norms=np.asarray(report.update_norm),
        mean_update_norm=float(fetch(outcome.mean_update_norm)),
        steps=outcome.steps,
        step_slots=outcome.step_slots,
        models=outcome.models,
    )
