"""A federated run's settings -> who is invited, who answers, how updates are combined and how privately."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from experiments.federated.algorithm import AlgorithmSettings, build
from experiments.options.errors import UsageError
from experiments.pretrain.settings import Settings
from fed import attendance, sampling
from fed.algorithm import Algorithm
from fed.attendance import Attend, Faults
from fed.privacy import accounting
from fed.privacy.noise import Privacy
from fed.protocols import ClientSource
from fed.sampling import Sampler
from fed.simulation import RoundResult


def algorithm(settings: Settings) -> Algorithm:
    """Build the federated algorithm.

    Raises:
        UsageError: there is no such algorithm, or it does not take one of the settings.
    """
    names = [field.name for field in dataclasses.fields(AlgorithmSettings) if field.name != "options"]
    held = {name: getattr(settings, name) for name in names}
    found = build(AlgorithmSettings(options=settings.algorithm_options, **held))
    if settings.client_states != "memory" and found.client_init is None:
        raise UsageError(
            f"--client-states has no meaning with --algorithm {settings.algorithm}: its clients keep nothing"
        )
    return found


def asked_per_round(settings: Settings, clients: int) -> int:
    """Count the invited clients: more than are wanted if some are expected to fail."""
    return min(clients, math.ceil(settings.clients_per_round * settings.overshoot))


def sampler(settings: Settings, names: Sequence[str]) -> Sampler:
    """Build the rule that invites clients: under privacy each one independently, else a fixed number."""
    if settings.dp_clip_norm is not None and settings.clients_per_round < len(names):
        return sampling.poisson(names, settings.clients_per_round / len(names), settings.seed)
    asked = asked_per_round(settings, len(names))
    if asked == len(names):
        return sampling.everyone(names)
    return sampling.uniform(names, asked, settings.seed)


def attend(settings: Settings, source: ClientSource) -> Attend:
    """Build the rule that decides which invited clients answer in time."""
    faults = Faults(
        dropout=settings.client_dropout,
        speed_spread=settings.speed_spread,
        deadline_steps=settings.deadline_steps or math.inf,
        wanted=settings.clients_per_round if settings.overshoot > 1 else None,
    )
    if faults == Faults():
        return attendance.all_answer

    def answer(round_index: int, asked: Sequence[str]) -> attendance.Attendance:
        steps = {client: source.plan(client, round_index).num_steps for client in asked}
        return attendance.attend(asked, steps, faults, seed=settings.seed, round_index=round_index)

    return answer


def expected_clients(settings: Settings, clients: int) -> float:
    """Compute the mean number of clients that answer in a private round.

    Args:
        settings: the settings of the run.
        clients: in the population.
    """
    return min(settings.clients_per_round, clients) * (1.0 - settings.client_dropout)


def privacy(settings: Settings, clients: int, stacked: tuple[str, ...]) -> Privacy | None:
    """Decide how updates are clipped and noised; None without privacy.

    The noise multiplier for `dp_epsilon` is computed here.

    Args:
        settings: the settings of the run.
        clients: in the population.
        stacked: names in the path of parameters whose leading axis counts layers.
    """
    if settings.dp_clip_norm is None:
        return None
    accounting.require()
    multiplier = settings.dp_noise_multiplier
    if multiplier is None:
        assert settings.dp_epsilon is not None  # one of the two is given
        multiplier = accounting.noise_multiplier(
            settings.dp_epsilon,
            sampling_probability=expected_clients(settings, clients) / clients,
            rounds=settings.rounds,
            delta=settings.dp_delta,
        )
    return Privacy(
        clip_norm=settings.dp_clip_norm,
        noise_multiplier=multiplier,
        expected_clients=expected_clients(settings, clients),
        by_layer=settings.dp_clipping == "layer",
        is_stacked=lambda path: any(getattr(part, "key", None) in stacked for part in path),
    )


def privacy_spent(settings: Settings, held: Privacy, clients: int, rounds: int) -> dict[str, float]:
    """Make the columns of what a private run has spent; arguments as in `epsilon_spent`."""
    return {
        "epsilon": epsilon_spent(settings, held, clients, rounds),
        "delta": settings.dp_delta,
        "noise_multiplier": held.noise_multiplier,
    }


def epsilon_spent(settings: Settings, held: Privacy, clients: int, rounds: int) -> float:
    """Compute the epsilon of the finished rounds, at the run's delta.

    A client is in a round if it is invited and answers. Both are drawn independently for each client and
    round, so that this is Poisson sampling with the product of the two probabilities.

    Args:
        settings: the settings of the run.
        held: the run's privacy.
        clients: in the population.
        rounds: that are finished.
    """
    return accounting.epsilon(
        held.noise_multiplier,
        sampling_probability=expected_clients(settings, clients) / clients,
        rounds=rounds,
        delta=settings.dp_delta,
    )


def effective_clients(weights: np.ndarray) -> float:
    """Count the clients of equal weight that would average as well: (sum w)^2 / sum w^2; 0 without any."""
    return float(np.square(weights.sum()) / np.square(weights).sum()) if weights.any() else 0.0


def share_of(clients: Sequence[str], result: RoundResult) -> float:
    """Compute the share that some clients have of all weights of a round; 0 if no client has any."""
    among = np.array([client in clients for client in result.clients], bool)
    return float(result.weights[among].sum() / result.weights.sum()) if result.weights.any() else 0.0
