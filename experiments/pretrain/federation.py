"""A federated run's settings -> who is asked, who answers, how updates are combined and how privately."""

import math
from collections.abc import Sequence

import optax

from experiments.pretrain.settings import Settings
from fed import aggregation, attendance, sampling, server
from fed.aggregation import LogWeight
from fed.attendance import Attend, Faults
from fed.privacy import accounting
from fed.privacy.noise import Privacy
from fed.protocols import ClientSource
from fed.sampling import Sampler


def rule(settings: Settings) -> LogWeight:
    """Make the rule that weighs the clients' updates."""
    return aggregation.RULES[settings.aggregation](settings.temperature)


def server_optimizer(settings: Settings) -> optax.GradientTransformation:
    """Make the server's optimizer at its learning rate."""
    return server.OPTIMIZERS[settings.server_optimizer](settings.server_learning_rate)


def asked_per_round(settings: Settings, clients: int) -> int:
    """Count the clients that are asked in a round: more than are wanted where some are expected to fail."""
    return min(clients, math.ceil(settings.clients_per_round * settings.overshoot))


def sampler(settings: Settings, names: Sequence[str]) -> Sampler:
    """Build the rule that draws the clients of a round: under privacy each by itself, else a fixed number."""
    if settings.dp_clip_norm is not None and settings.clients_per_round < len(names):
        return sampling.poisson(names, settings.clients_per_round / len(names), settings.seed)
    asked = asked_per_round(settings, len(names))
    if asked == len(names):
        return sampling.everyone(names)
    return sampling.uniform(names, asked, settings.seed)


def attend(settings: Settings, source: ClientSource) -> Attend:
    """Build the rule that decides which of the clients that are asked answer in time."""
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


def privacy(settings: Settings, clients: int, stacked: tuple[str, ...]) -> Privacy | None:
    """Choose how updates are clipped and noised, with the noise that an epsilon needs; None without privacy.

    Args:
        clients: size of the population.
        stacked: names in the paths of parameters whose leading axis counts layers.
    """
    if settings.dp_clip_norm is None:
        return None
    accounting.require()
    multiplier = settings.dp_noise_multiplier
    if multiplier is None:
        assert settings.dp_epsilon is not None  # one of the two is given
        multiplier = accounting.noise_multiplier(
            settings.dp_epsilon,
            sampling_probability=settings.clients_per_round / clients,
            rounds=settings.rounds,
            delta=settings.dp_delta,
        )
    return Privacy(
        clip_norm=settings.dp_clip_norm,
        noise_multiplier=multiplier,
        expected_clients=float(settings.clients_per_round),
        by_layer=settings.dp_clipping == "layer",
        is_stacked=lambda path: any(getattr(part, "key", None) in stacked for part in path),
    )


def spent(settings: Settings, held: Privacy, clients: int, rounds: int) -> dict[str, float]:
    """Compute what a private run has spent after so many rounds, as columns of metrics.jsonl."""
    epsilon = accounting.epsilon(
        held.noise_multiplier,
        sampling_probability=settings.clients_per_round / clients,
        rounds=rounds,
        delta=settings.dp_delta,
    )
    return {"epsilon": epsilon, "delta": settings.dp_delta, "noise_multiplier": held.noise_multiplier}
