"""The rounds of a run, federated or centralised, and their columns of metrics.jsonl."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments.federated.warnings import fruitless
from experiments.pretrain import federation
from experiments.pretrain.clients import SpeechClients
from experiments.pretrain.settings import Settings
from fed import centralised, simulation
from fed.algorithm import Algorithm
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.compression.transfers import Transfers, client_transfers
from fed.engine.client_states import ClientStates
from fed.keys import Stream
from fed.privacy.noise import Privacy
from fed.protocols import ClientPlan
from w2v_jax.data.batches import pipeline
from w2v_jax.data.batches.crops import CropBatches
from w2v_jax.data.common_voice import Utterance
from w2v_jax.errors import DIVERGED


@dataclasses.dataclass(frozen=True)
class RoundLog:
    """A finished round, or a centralised stretch as long as a round, for the log.

    Attributes:
        round_index: rounds finished, counting this one.
        state: the state of the server, or of the centralised run.
        sums: the objective's sums over the round's steps.
        columns: further columns of metrics.jsonl.
        diagnosed: the result of a round that kept its clients' models.
        warning: what the user should know of the round.
        diverged: why the run ends here; `state` is then the last finite one, of the round before. None while
            the run can go on.
    """

    round_index: int
    state: Any
    sums: Any
    columns: dict[str, Any]
    diagnosed: simulation.RoundResult | None = None
    warning: str | None = None
    diverged: str | None = None


def federated(
    settings: Settings,
    state: Any,
    training: LocalTraining,
    algorithm: Algorithm,
    source: SpeechClients,
    layout: Layout,
    *,
    steps_per_round: int,
    privacy: Privacy | None,
    states: ClientStates | None,
    corrupted: Sequence[str],
) -> Iterator[RoundLog]:
    """Run the federated rounds that are left.

    Args:
        state: the server's state; it is consumed.
        steps_per_round: local steps by which schedules advance in a round.
        states: what clients keep between rounds; None where they keep nothing.
        corrupted: clients whose clips are spoilt.
    """
    run = simulation.Simulation(
        training,
        algorithm,
        source,
        federation.sampler(settings, source.client_ids()),
        layout,
        settings.seed,
        steps_per_round,
        keep_models=lambda index: settings.is_due(settings.diagnose_every, index + 1),
        attend=federation.attend(settings, source),
        max_update_norm=settings.max_update_norm or math.inf,
        privacy=privacy,
        states=states,
        warn=lambda text: None,  # the round's log has it
    )
    transfers = client_transfers(algorithm, training, state.parameters, state.objective_state)
    for result in simulation.run(run, state, settings.rounds):
        plans = [source.plan(name, result.round_index - 1) for name in result.clients]
        columns = client_columns(result, plans, transfers)
        columns["padded_share"] = padded_share(result.sums, result.step_slots, source.slot_seconds())
        if corrupted:
            columns["corrupted_weight"] = federation.share_of(corrupted, result)
        if privacy:
            columns["clipped_share"] = result.clipped_share
        diagnosed = result if result.models is not None else None
        warning = fruitless(result)
        yield RoundLog(result.round_index, result.server, result.sums, columns, diagnosed, warning)


def client_columns(
    result: simulation.RoundResult, plans: Sequence[ClientPlan], transfers: Transfers
) -> dict[str, Any]:
    """Make the columns of a federated round's clients.

    `client_losses` are the losses that loss weighting uses, over the run's `loss_window`. The band from
    `client_loss_min` to `client_loss_max` is over all local steps of the accepted clients, as `loss` is: so
    `loss`, their mean by masked frames, lies within it but for rounding.

    Args:
        result: the round.
        plans: the plans of its clients.
        transfers: bytes that one client receives and sends.
    """
    accepted = np.array([name not in result.skipped for name in result.clients], bool)
    # A window from step 0 on is the round; its loss was summed in another order, in older versions too.
    is_round = np.array([plan.loss_from_step == 0 for plan in plans], bool)
    losses = np.where(is_round, result.losses, result.round_losses)[accepted]
    norms = result.update_norms[result.weights > 0]
    weights, answered = result.weights, len(result.clients)
    sent = transfers.of_clients(answered + len(result.dropped) + len(result.late), answered)
    return {
        "clients": len(result.clients),
        "skipped_clients": len(result.skipped),
        "skipped_client_ids": result.skipped,
        "too_large_clients": len(result.too_large),
        "dropped_clients": len(result.dropped),
        "late_clients": len(result.late),
        "local_steps": result.steps,
        "client_ids": result.clients,
        "client_losses": result.losses.tolist(),
        "client_weights": weights.tolist(),
        "effective_clients": federation.effective_clients(weights),
        "client_loss_min": _or_nan(np.min, losses),
        "client_loss_max": _or_nan(np.max, losses),
        "update_norm": result.mean_update_norm,
        "client_update_norm_mean": _or_nan(np.mean, norms),
        "bytes_up": sent.up,
        "bytes_down": sent.down,
    }


def padded_share(sums: Any, step_slots: int, slot_seconds: float) -> float:
    """Compute the share of the audio slots that taught nothing: padding, and clients left out.

    Args:
        sums: the sums of the round; `audio_seconds` among them.
        step_slots: steps that were computed or reserved.
        slot_seconds: audio that a step holds without padding.
    """
    if not step_slots:  # a round that reached nobody
        return 0.0
    return 1.0 - float(sums["audio_seconds"][0]) / (step_slots * slot_seconds)


def central(
    settings: Settings,
    state: Any,
    training: LocalTraining,
    clips: Sequence[Utterance],
    *,
    steps_per_stretch: int,
    slot_seconds: float,
) -> Iterator[RoundLog]:
    """Train one model on all clips, in the stretches that are left.

    A stretch after which the parameters are no longer finite is the last one; its log has `diverged`.
    """
    crops = CropBatches(
        clips,
        batch_size=settings.batch_size,
        crop_samples=settings.crop_samples,
        identity=(Stream.CENTRAL_BATCHES, settings.seed),
    )

    def batches(index: int):
        first = index * steps_per_stretch
        return pipeline.stream(crops, first_step=first, num_steps=first + steps_per_stretch)

    sums = simulation.abstract_sums(
        training.objective, state.parameters, state.objective_state, next(batches(0))
    )
    for result in centralised.run(
        training,
        state,
        batches,
        sums=sums,
        num_stretches=settings.rounds,
        steps_per_stretch=steps_per_stretch,
        seed=settings.seed,
    ):
        columns = {
            "clients": 0,
            "skipped_clients": 0,
            "local_steps": steps_per_stretch,
            "padded_share": padded_share(result.sums, steps_per_stretch, slot_seconds),
            "update_norm": result.update_norm,
            "bytes_up": 0,
            "bytes_down": 0,
        }
        diverged = None if result.finite else divergence(result.round_index)
        state = result.state if result.finite else state
        yield RoundLog(result.round_index, state, result.sums, columns, diverged=diverged)
        if diverged:
            return


def divergence(stretch: int) -> str:
    """Say in a line that a centralised run diverged in a stretch, and what is kept."""
    kept = f"; checkpoints/ keeps the model after stretch {stretch - 1}" if stretch > 1 else ""
    return (
        f"{DIVERGED} in stretch {stretch}: the parameters are no longer finite{kept}; lower --learning-rate "
        "and start in another --out"
    )


def _or_nan(function: Any, values: np.ndarray) -> float:
    """Compute a statistic of the clients; NaN where there are none."""
    return float(function(values)) if len(values) else float("nan")
