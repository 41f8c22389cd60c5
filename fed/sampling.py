"""Which clients take part in a round: functions of the round alone, so that runs can resume."""

from collections.abc import Callable, Sequence

from fed.keys import Draw, generator
from fed.protocols import FederationError

Sampler = Callable[[int], list[str]]


def everyone(client_ids: Sequence[str]) -> Sampler:
    """All clients, every round."""
    return lambda round_index: list(client_ids)


def uniform(client_ids: Sequence[str], clients_per_round: int, seed: int) -> Sampler:
    """`clients_per_round` different clients, drawn anew from (seed, round).

    Raises:
        FederationError: fewer clients than are to be drawn.
    """
    population = sorted(client_ids)
    if not 1 <= clients_per_round <= len(population):
        raise FederationError(
            f"clients per round must be between 1 and {len(population)} (the clients there are), "
            f"got {clients_per_round}"
        )

    def sample(round_index: int) -> list[str]:
        chosen = generator(Draw.SAMPLING, seed, round_index).choice(
            len(population), clients_per_round, replace=False
        )
        return [population[index] for index in chosen]

    return sample
