"""The host loop over rounds: sample, feed, step. It yields results; it prints and writes nothing."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from fed.algorithm import Algorithm
from fed.attendance import Attend, Attendance, all_answer
from fed.client import LocalTraining
from fed.cohort import ClientReport, Layout, RoundSettings, Verdict
from fed.engine.blocks import Engine, choose_block_steps
from fed.engine.client_states import ClientStates
from fed.engine.programs import build_programs
from fed.placement import fetch, replicate
from fed.privacy.noise import Privacy
from fed.protocols import ClientSource, FederationError, Objective, PyTree, Resident
from fed.round import ClientModels, RoundOutcome, run_round
from fed.sampling import Sampler
from fed.server import ServerState


class RoundResult(NamedTuple):
    """A finished round on the host.

    Attributes:
        round_index: number of finished rounds, including this one.
        server: the state after the round, on the device; the next round consumes it.
        sums: totals over all accepted clients.
        clients: the clients that answered.
        losses: the mean loss of each client over the steps that its plan reports, which the rule of
            aggregation sees.
        round_losses: the mean loss of each client over all its local steps, as in `sums`.
        weights: the weight of each client in the mean of messages; 0 for skipped clients. They sum to one,
            except under privacy, where each is 1 / `Privacy.expected_clients`. An algorithm that combines
            messages itself, such as a median, may give clients other shares.
        skipped: clients whose update was left out: not finite, too large, or nothing learnt.
        not_finite, too_large: the skipped clients whose update was not finite, or too large.
        dropped, late: invited clients that did not answer, or not in time; they are not in `clients`.
        clipped_share: mean over clients of the share of their arrays that privacy scaled down.
        update_norms: norm of each client's update.
        mean_update_norm: norm of the update that the server got.
        steps: local steps done.
        step_slots: local steps computed or reserved, padding included.
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
    not_finite: list[str]
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
    """A federated run: how clients train, the algorithm, who takes part.

    Attributes:
        training, algorithm, layout, max_update_norm, privacy: as of `cohort.RoundSettings`.
        source: the clients' data.
        sampler: round index -> the invited clients.
        seed: the seed of all keys of the run.
        steps_per_round: nominal local steps of a round, by which schedules advance.
        block_steps: local steps per block; None chooses by memory.
        keep_models: round index from 0 -> whether the result has the clients' models.
        attend: which invited clients answer in time.
        states: what clients keep between rounds, from `client_states`; None makes a store in memory, where
            the algorithm needs one. A run that continues needs the store that it began with.
        warn: told in a line of a round in which no client's update counted.
    """

    training: LocalTraining
    algorithm: Algorithm
    source: ClientSource
    sampler: Sampler
    layout: Layout
    seed: int
    steps_per_round: int
    block_steps: int | None = None
    keep_models: Callable[[int], bool] = lambda round_index: False
    attend: Attend = all_answer
    max_update_norm: float = math.inf
    privacy: Privacy | None = None
    states: ClientStates | None = None
    warn: Callable[[str], object] = warnings.warn

    @property
    def settings(self) -> RoundSettings:
        """Settings from which the programs of its rounds are built."""
        return RoundSettings(self.training, self.algorithm, self.layout, self.max_update_norm, self.privacy)


def abstract_sums(objective: Objective, parameters: PyTree, state: PyTree, batch: PyTree) -> PyTree:
    """Find the shapes of the sums that one step returns.

    Raises:
        FederationError: the step does not return (gradients, state, sums) with a loss.
    """
    found = jax.eval_shape(objective.value_and_grad, parameters, state, batch, jax.random.key(0), np.int32(0))
    if not isinstance(found, tuple) or len(found) != 3 or "loss" not in found[2]:
        raise FederationError(
            'the objective\'s value_and_grad has to return (gradients, state, sums), with sums["loss"] = '
            "(total, weight); fed.check says what is wrong"
        )
    return found[2]


def build_engine(
    settings: RoundSettings,
    server: ServerState,
    batch: PyTree,
    max_steps: int,
    *,
    resident: Resident | None = None,
) -> Engine:
    """Build the programs of a run and choose its block size.

    Args:
        settings: how clients train, the algorithm, and the layout.
        server: a state, for its shapes.
        batch: some client's batch, for its shapes and bytes.
        max_steps: most local steps that a client makes in a round, as far as known; it decides the block
            size and nothing else.
        resident: data that stay on the devices, of which batches select a part.
    """
    whole = batch if resident is None else jax.eval_shape(resident.read, resident.data, batch)
    sums = abstract_sums(settings.training.objective, server.parameters, server.objective_state, whole)
    batch_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(batch))
    programs = build_programs(settings, sums, read=resident.read if resident else None)
    return Engine(
        programs,
        settings.layout,
        choose_block_steps(max_steps, batch_bytes, settings.layout),
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch),
        data=replicate(resident.data, programs.replicated) if resident else (),
        states=client_states(settings, server.parameters),
    )


def client_states(
    settings: RoundSettings,
    parameters: PyTree,
    folder: Path | None = None,
    *,
    on_disk: bool = False,
    writes: bool = True,
) -> ClientStates | None:
    """Make the store of what clients keep between rounds; None where they keep nothing.

    Args:
        settings: of the run.
        parameters: the server's, for their shapes.
        folder, on_disk, writes: as of `ClientStates`.
    """
    made = settings.algorithm.client_init
    if made is None:
        return None
    initial = jax.jit(lambda held: made(settings.training, held))(parameters)
    return ClientStates(fetch(initial), folder, on_disk=on_disk, writes=writes)


def first_batch(source: ClientSource, client_ids: Sequence[str], round_index: int = 0) -> PyTree | None:
    """Read the first batch of the first client that has a step to make; None if no client has one."""
    for client_id in client_ids:
        if source.plan(client_id, round_index).num_steps > 0:
            return next(iter(source.client_batches(client_id, round_index)), None)
    return None


def prepare(simulation: Simulation, server: ServerState) -> Engine:
    """Build the engine of a simulation, from the shape of the first batch that a client has.

    Raises:
        FederationError: there are no clients, or none of them has a batch.
    """
    source = simulation.source
    client_ids = source.client_ids()
    if not client_ids:
        raise FederationError("there are no clients")
    batch = first_batch(source, client_ids)
    if batch is None:
        raise FederationError(f"none of the {len(client_ids)} clients has anything to train on")
    resident = getattr(source, "resident", None)
    engine = build_engine(simulation.settings, server, batch, simulation.steps_per_round, resident=resident)
    return engine._replace(
        block_steps=simulation.block_steps or engine.block_steps,
        population=len(client_ids),
        states=simulation.states if simulation.states is not None else engine.states,
    )


def run(simulation: Simulation, server: ServerState, num_rounds: int) -> Iterator[RoundResult]:
    """Run rounds from the server's own round count up to `num_rounds`.

    The incoming state is consumed (its buffers are donated).

    Args:
        simulation: how clients train, the algorithm, who takes part.
        server: from `server.init` or a checkpoint.
        num_rounds: length of the whole run, including rounds before this call.

    Yields:
        One result per round. The next round consumes its `server`: copy what is to be kept.

    Raises:
        FederationError: there are no clients, a client has fewer batches than steps, a private round has a
            client twice, or a run continues without what its clients keep.
    """
    if simulation.algorithm.client_init and simulation.states is None and int(server.round_index) > 0:
        raise FederationError(
            f"the state after round {int(server.round_index)} cannot go on alone, as clients of this "
            "algorithm keep a state: give Simulation(states=...) the store that the earlier rounds filled"
        )
    engine = prepare(simulation, server)
    for round_index in range(int(server.round_index), num_rounds):
        attendance = simulation.attend(round_index, simulation.sampler(round_index))
        present = attendance.present
        if simulation.privacy is not None and len(set(present)) < len(present):
            raise FederationError(
                f"round {round_index + 1} has a client twice: it would count twice, and privacy is accounted "
                "for one update per client"
            )
        outcome = run_round(
            engine,
            server,
            simulation.source,
            present,
            seed=simulation.seed,
            round_index=round_index,
            first_step=round_index * simulation.steps_per_round,
            keep_models=simulation.keep_models(round_index),
        )
        server = outcome.server
        result = to_result(outcome, round_index, attendance, simulation.privacy)
        if (why := fruitless(result)) is not None:
            simulation.warn(why)
        yield result


def fruitless(result: RoundResult) -> str | None:
    """Describe why no client that answered counted in a round; None if one did, or if none answered."""
    if not result.clients or len(result.clients) > len(result.skipped):
        return None
    reasons = {"not finite": len(result.not_finite), "too large": len(result.too_large)}
    reasons["without anything learnt"] = len(result.skipped) - sum(reasons.values())
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    return f"round {result.round_index} used no client's update ({why})"


def to_result(
    outcome: RoundOutcome,
    round_index: int,
    attendance: Attendance | None = None,
    privacy: Privacy | None = None,
) -> RoundResult:
    """Fetch from a finished round what a log needs."""
    report = outcome.reports
    verdicts = list(zip(outcome.clients, report.verdict, strict=True))
    return RoundResult(
        round_index=round_index + 1,
        server=outcome.server,
        sums=fetch(outcome.sums),
        clients=outcome.clients,
        losses=np.asarray(report.loss),
        round_losses=np.asarray(report.round_loss),
        weights=_weights(report, privacy),
        skipped=[client for client, verdict in verdicts if verdict != Verdict.ACCEPTED],
        not_finite=[client for client, verdict in verdicts if verdict == Verdict.NOT_FINITE],
        too_large=[client for client, verdict in verdicts if verdict == Verdict.TOO_LARGE],
        dropped=attendance.dropped if attendance else [],
        late=attendance.late if attendance else [],
        clipped_share=float(np.mean(report.clipped)) if len(report.clipped) else 0.0,
        update_norms=np.asarray(report.update_norm),
        mean_update_norm=float(fetch(outcome.mean_update_norm)),
        steps=outcome.steps,
        step_slots=outcome.step_slots,
        models=outcome.models,
    )


def _weights(report: ClientReport, privacy: Privacy | None) -> np.ndarray:
    """The factor of each client's update in the server's: float64 [client], zero where left out."""
    accepted = report.verdict == Verdict.ACCEPTED
    if privacy is not None:
        return np.where(accepted, 1.0 / privacy.expected_clients, 0.0)
    log_weights = np.asarray(report.log_weight, np.float64)
    if not accepted.any():
        return np.zeros_like(log_weights)
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()
