"""Utterances -> clients: groups (speakers) are never split, amounts (seconds) are balanced."""

from collections.abc import Mapping

import numpy as np

from fed.keys import Draw, generator
from fed.protocols import FederationError


def balanced(amounts: Mapping[str, float], num_clients: int, seed: int) -> list[list[str]]:
    """Deal groups to clients so that each holds about the same amount.

    Longest first, each to the client that holds least (the LPT rule); groups of equal amount come
    in an order drawn from the seed.

    Args:
        amounts: group (speaker) -> amount (seconds).
        num_clients: number of clients.
        seed: of the order among equals.

    Returns:
        Groups of each client, sorted by name.

    Raises:
        FederationError: fewer groups than clients.
    """
    if not 1 <= num_clients <= len(amounts):
        raise FederationError(
            f"{num_clients} clients need at least as many speakers, and there are {len(amounts)}: "
            f"ask for {len(amounts)} clients or fewer"
        )
    names = sorted(amounts)
    order = generator(Draw.PARTITION, seed).permutation(len(names))
    queue = sorted((names[index] for index in order), key=lambda name: -amounts[name])
    held = np.zeros(num_clients)
    clients: list[list[str]] = [[] for _ in range(num_clients)]
    for name in queue:
        # Among equals the client with fewest groups, so that nobody stays empty.
        lightest = min(range(num_clients), key=lambda c: (held[c], len(clients[c]), c))
        clients[lightest].append(name)
        held[lightest] += amounts[name]
    return [sorted(groups) for groups in clients]
