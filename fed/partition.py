"""Deal data to clients: by speaker, balanced, alike or skewed. Groups are names and amounts are numbers."""

import heapq
from collections.abc import Mapping

import numpy as np

from fed.keys import Stream, stream_generator
from fed.protocols import FederationError


def balanced(amounts: Mapping[str, float], num_clients: int, seed: int) -> list[list[str]]:
    """Deal groups to clients so that each holds about the same amount.

    Groups are dealt longest first, each to the client that holds least (the LPT rule). Groups of equal
    amount come in an order drawn from the seed.

    Args:
        amounts: group (speaker) -> amount (seconds).
        num_clients: number of clients.
        seed: the seed of the order among equals.

    Returns:
        Groups of each client, sorted by name.

    Raises:
        FederationError: there are fewer groups than clients.
    """
    _check(len(amounts), num_clients, "speakers")
    names = sorted(amounts)
    order = stream_generator(Stream.PARTITION, seed).permutation(len(names))
    queue = sorted((names[index] for index in order), key=lambda name: -amounts[name])
    clients: list[list[str]] = [[] for _ in range(num_clients)]
    # Among clients that hold equally much, the one with fewest groups is next, so that none stays empty.
    lightest = [(0.0, 0, client) for client in range(num_clients)]
    for name in queue:
        held, groups, client = lightest[0]
        clients[client].append(name)
        heapq.heapreplace(lightest, (held + amounts[name], groups + 1, client))
    return [sorted(groups) for groups in clients]


def single(amounts: Mapping[str, float]) -> list[list[str]]:
    """Make each group a client, in the order of names."""
    return [[name] for name in sorted(amounts)]


def iid(amounts: Mapping[str, float], num_clients: int, seed: int) -> list[list[str]]:
    """Deal items (clips) at random, so that every client's data look alike; amounts are balanced.

    Args:
        amounts: item -> amount (seconds).
        num_clients: number of clients.
        seed: the seed of the random order.

    Returns:
        Items of each client, sorted by name.

    Raises:
        FederationError: there are fewer items than clients, or the amounts add up to nothing.
    """
    _check(len(amounts), num_clients, "clips")
    names = sorted(amounts)
    order = stream_generator(Stream.PARTITION, seed).permutation(len(names))
    # Cut a random order into runs of equal amount, one for each client.
    sizes = np.array([amounts[names[index]] for index in order])
    if not sizes.sum() > 0:
        raise FederationError(f"the amounts of {len(names)} clips add up to {sizes.sum():g}: nothing to deal")
    middle = np.cumsum(sizes) - sizes / 2
    owner = np.minimum((middle * num_clients / sizes.sum()).astype(int), num_clients - 1)
    clients: list[list[str]] = [[] for _ in range(num_clients)]
    for index, client in zip(order, owner, strict=True):
        clients[client].append(names[index])
    return _without_empty(clients, amounts)


def dirichlet(
    amounts: Mapping[str, float], labels: Mapping[str, str], num_clients: int, alpha: float, seed: int
) -> list[list[str]]:
    """Share out each label (accent, age, ...) among the clients by Dirichlet(alpha).

    This is the partition of Yurochkin et al. 2019 (arXiv 1905.12022), and of Flower's
    DirichletPartitioner, over whole groups: the groups of a label are dealt, longest first, to the client
    furthest below its share of that label. Small alphas give each label to few clients, and clients
    of unlike size; large alphas make all clients alike.

    Args:
        amounts: group (speaker) -> amount (seconds).
        labels: group -> label.
        num_clients: number of clients.
        alpha: concentration, positive.
        seed: the seed of the shares.

    Returns:
        Groups of each client, sorted by name; none is empty.

    Raises:
        FederationError: there are fewer groups than clients, or alpha is not positive.
    """
    _check(len(amounts), num_clients, "speakers")
    _check_alpha(alpha)
    rng = stream_generator(Stream.PARTITION, seed)
    clients: list[list[str]] = [[] for _ in range(num_clients)]
    for label in sorted({labels[name] for name in amounts}):
        names = sorted((n for n in amounts if labels[n] == label), key=lambda n: (-amounts[n], n))
        wanted = rng.dirichlet(np.full(num_clients, alpha)) * sum(amounts[name] for name in names)
        for name in names:
            client = int(np.argmax(wanted))
            clients[client].append(name)
            wanted[client] -= amounts[name]
    return _without_empty(clients, amounts)


def dirichlet_equal(
    amounts: Mapping[str, float], labels: Mapping[str, str], num_clients: int, alpha: float, seed: int
) -> list[list[str]]:
    """Give every client about the same amount, with its own mix of labels (accent, age, ...).

    This is the partition of Hsu et al. 2019 (arXiv 1909.06335) over whole groups: each client draws its mix
    from Dirichlet(alpha x the labels' shares of all data). The client that holds least draws a label
    from its mix and takes the longest group of that label; a label that has run out leaves all mixes.
    Small alphas give each client few labels, large ones the mix of all data.

    Args:
        amounts: group (speaker) -> amount (seconds), positive.
        labels: group -> label.
        num_clients: number of clients.
        alpha: concentration, positive.
        seed: the seed of mixes and draws.

    Returns:
        Groups of each client, sorted by name; none is empty.

    Raises:
        FederationError: there are fewer groups than clients, or alpha or an amount is not positive.
    """
    _check(len(amounts), num_clients, "speakers")
    _check_alpha(alpha)
    for name, amount in amounts.items():
        if not amount > 0:
            raise FederationError(f"the amount of {name} must be positive, got {amount:g}")
    rng = stream_generator(Stream.PARTITION, seed)
    names = sorted({labels[name] for name in amounts})
    left: list[list[str]] = [
        sorted((n for n in amounts if labels[n] == label), key=lambda n: (amounts[n], n)) for label in names
    ]
    shares = np.array([sum(amounts[name] for name in held) for held in left])
    mixes = rng.dirichlet(alpha * shares / shares.sum(), num_clients)
    clients: list[list[str]] = [[] for _ in range(num_clients)]
    lightest = [(0.0, 0, client) for client in range(num_clients)]
    for _ in amounts:
        held, groups, client = lightest[0]
        there = np.array([bool(groups_left) for groups_left in left])
        mix = np.where(there, mixes[client], 0.0)
        if mix.sum() == 0.0:  # the client's own labels have run out
            mix = np.where(there, shares, 0.0)
        name = left[rng.choice(len(names), p=mix / mix.sum())].pop()
        clients[client].append(name)
        heapq.heapreplace(lightest, (held + amounts[name], groups + 1, client))
    return [sorted(groups) for groups in clients]


def _check_alpha(alpha: float) -> None:
    if not (alpha > 0 and np.isfinite(alpha)):
        raise FederationError(f"the Dirichlet alpha must be positive and finite, got {alpha}")


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
