"""Data -> clients: by speaker, balanced, alike or skewed. Groups and amounts are only names and numbers."""

import heapq
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
    _check(len(amounts), num_clients, "speakers")
    names = sorted(amounts)
    order = generator(Draw.PARTITION, seed).permutation(len(names))
    queue = sorted((names[index] for index in order), key=lambda name: -amounts[name])
    clients: list[list[str]] = [[] for _ in range(num_clients)]
    # Among equals the client with fewest groups, so that nobody stays empty.
    lightest = [(0.0, 0, client) for client in range(num_clients)]
    for name in queue:
        held, groups, client = lightest[0]
        clients[client].append(name)
        heapq.heapreplace(lightest, (held + amounts[name], groups + 1, client))
    return [sorted(groups) for groups in clients]


def single(amounts: Mapping[str, float]) -> list[list[str]]:
    """Each group a client of its own, in the order of names."""
    return [[name] for name in sorted(amounts)]


def iid(amounts: Mapping[str, float], num_clients: int, seed: int) -> list[list[str]]:
    """Deal items (clips) at random, so that every client's data look alike; amounts are balanced.

    Args:
        amounts: item -> amount (seconds).

    Returns:
        Items of each client, sorted by name.

    Raises:
        FederationError: fewer items than clients.
    """
    _check(len(amounts), num_clients, "clips")
    names = sorted(amounts)
    order = generator(Draw.PARTITION, seed).permutation(len(names))
    # Runs of equal amount of a random order: each client's end is where its share is full.
    sizes = np.array([amounts[names[index]] for index in order])
    middle = np.cumsum(sizes) - sizes / 2
    owner = np.minimum((middle * num_clients / sizes.sum()).astype(int), num_clients - 1)
    clients: list[list[str]] = [[] for _ in range(num_clients)]
    for index, client in zip(order, owner, strict=True):
        clients[client].append(names[index])
    return _without_empty(clients, amounts)


def dirichlet(
    amounts: Mapping[str, float], labels: Mapping[str, str], num_clients: int, alpha: float, seed: int
) -> list[list[str]]:
    """Skew a label (accent, age, ...) across clients: each label's shares follow Dirichlet(alpha).

    Hsu et al. 2019 (arXiv 1909.06335) over whole groups: the groups of a label are dealt, longest
    first, to the client furthest below its share of that label, so that groups stay whole. Small
    alphas give each label to few clients, large ones to all alike.

    Args:
        amounts: group (speaker) -> amount (seconds).
        labels: group -> label.
        alpha: concentration, positive.

    Returns:
        Groups of each client, sorted by name; none is empty.

    Raises:
        FederationError: fewer groups than clients, or an alpha that is not positive.
    """
    _check(len(amounts), num_clients, "speakers")
    if not alpha > 0:
        raise FederationError(f"the Dirichlet alpha must be positive, got {alpha}")
    rng = generator(Draw.PARTITION, seed)
    clients: list[list[str]] = [[] for _ in range(num_clients)]
    for label in sorted({labels[name] for name in amounts}):
        names = sorted((n for n in amounts if labels[n] == label), key=lambda n: (-amounts[n], n))
        wanted = rng.dirichlet(np.full(num_clients, alpha)) * sum(amounts[name] for name in names)
        for name in names:
            client = int(np.argmax(wanted))
            clients[client].append(name)
            wanted[client] -= amounts[name]
    return _without_empty(clients, amounts)


def _check(groups: int, num_clients: int, what: str) -> None:
    if not 1 <= num_clients <= groups:
        raise FederationError(
            f"{num_clients} clients need at least as many {what}, and there are {groups}: "
            f"ask for {groups} clients or fewer"
        )


def _without_empty(clients: list[list[str]], amounts: Mapping[str, float]) -> list[list[str]]:
    """Give every empty client the smallest group of the client that has most groups."""
    for client in clients:
        if not client:
            donor = max(clients, key=len)
            client.append(donor.pop(donor.index(min(donor, key=lambda name: (amounts[name], name)))))
    return [sorted(groups) for groups in clients]
