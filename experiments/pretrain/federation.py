"""A federated run's settings -> who is asked, who answers, how updates are combined and how privately."""

import math
from collections.abc import Sequence
from typing import Any

import optax

from fed import attendance, sampling, server
from fed.attendance import Attend, Faults
from fed.privacy import accounting
from fed.privacy.noise import Privacy
from fed.protocols import ClientSource
from fed.sampling import Sampler


def server_optimizer(settings: dict[str, Any]) -> optax.GradientTransformation:
    """The server's optimizer at its learning rate."""
    return server.OPTIMIZERS[settings["server_optimizer"]](settings["server_learning_rate"])


def asked_per_round(settings: dict[str, Any], clients: int) -> int:
    """Clients that are asked, more than are wanted where some are expected to fail."""
    return min(clients, math.ceil(settings["clients_per_round"] * settings["overshoot"]))


def sampler(settings: dict[str, Any], names: Sequence[str]) -> Sampler:
    """Who is asked in a round: each client by itself under privacy, else a fixed number."""
    if settings["dp_clip_norm"] is not None and settings["clients_per_round"] < len(names):
        return sampling.poisson(names, settings["clients_per_round"] / len(names), settings["seed"])
    asked = asked_per_round(settings, len(names))
    if asked == len(names):
        return sampling.everyone(names)
    return sampling.uniform(names, asked, settings["seed"])


def attend(settings: dict[str, Any], source: ClientSource) -> Attend:
    """Who of them answers."""
    faults = Faults(
        dropout=settings["client_dropout"],
        speed_spread=settings["speed_spread"],
        deadline_steps=settings["deadline_steps"] or math.inf,
        wanted=settings["clients_per_round"] if settings["overshoot"] > 1 else None,
    )
    if faults == Faults():
        return attendance.all_answer

    def answer(round_index: int, asked: Sequence[str]) -> attendance.Attendance:
        steps = {client: source.plan(client, round_index).num_steps for client in asked}
        return attendance.attend(asked, steps, faults, seed=settings["seed"], round_index=round_index)

    return answer


def privacy(settings: dict[str, Any], clients: int, stacked: tuple[str, ...]) -> Privacy | None:
    """How updates are clipped and noised, or None; the noise for an epsilon is found here.

    Args:
        clients: in the population.
        stacked: names in the path of parameters whose leading axis counts layers.
    """
    if settings["dp_clip_norm"] is None:
        return None
    accounting.require()
    multiplier = settings["dp_noise_multiplier"]
    if multiplier is None:
        multiplier = accounting.noise_multiplier(
            settings["dp_epsilon"],
            sampling_probability=settings["clients_per_round"] / clients,
            rounds=settings["rounds"],
            delta=settings["dp_delta"],
        )
    return Privacy(
        clip_norm=settings["dp_clip_norm"],
        noise_multiplier=multiplier,
        expected_clients=float(settings["clients_per_round"]),
        by_layer=settings["dp_clipping"] == "layer",
        is_stacked=lambda path: any(getattr(part, "key", None) in stacked for part in path),
    )


def epsilon_spent(settings: dict[str, Any], held: Privacy, clients: int, rounds: int) -> float:
    """The epsilon of so many finished rounds, at the run's delta."""
    return accounting.epsilon(
        held.noise_multiplier,
        sampling_probability=settings["clients_per_round"] / clients,
        rounds=rounds,
        delta=settings["dp_delta"],
    )
