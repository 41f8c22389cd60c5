"""Which clients are invited to a round: functions of the round alone, so that runs can resume."""

from collections.abc import Callable, Sequence

from fed.keys import Stream, stream_generator
from fed.protocols import FederationError

Sampler = Callable[[int], list[str]]


def everyone(client_ids: Sequence[str]) -> Sampler:
    """Invite all clients to every round."""
    return lambda round_index: list(client_ids)


def poisson(client_ids: Sequence[str], probability: float, seed: int) -> Sampler:
    """Invite each client independently with `probability`, drawn anew from (seed, round).

    Privacy accountants assume this sampling. Cohorts differ in size and may be empty.

    Args:
        client_ids: the population; its order changes nothing.
        probability: above 0, at most 1.
        seed: not negative.

    Raises:
        FederationError: the probability is not in (0, 1].
    """
    population = sorted(client_ids)
    if not 0 < probability <= 1:
        raise FederationError(f"sampling probability must be in (0, 1], got {probability}")

    def sample(round_index: int) -> list[str]:
        drawn = stream_generator(Stream.SAMPLING, seed, round_index).random(len(population))
        return [client for client, value in zip(population, drawn, strict=True) if value < probability]

    return sample


def uniform(client_ids: Sequence[str], clients_per_round: int, seed: int) -> Sampler:
    """Invite `clients_per_round` different clients, drawn anew from (seed, round).

    Args:
        client_ids: the population; its order changes nothing.
        clients_per_round: at most the size of the population.
        seed: not negative.

    Raises:
        FederationError: there are fewer clients than are to be drawn.
    """
    population = sorted(client_ids)
    if not 1 <= clients_per_round <= len(population):
        raise FederationError(
            f"clients per round must be between 1 and {len(population)} (the clients there are), "
            f"got {clients_per_round}"
        )

    def sample(round_index: int) -> list[str]:
        chosen = stream_generator(Stream.SAMPLING, seed, round_index).choice(
            len(population), clients_per_round, replace=False
        )
        return [population[index] for index in chosen]

    return sample
