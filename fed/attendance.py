"""Which invited clients answer in time: some devices drop out, some are slow.

Everything is a function of seed, round and client. Clients that are dropped or late are not trained, as
their updates would not reach the server, and the cost of their work is not counted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fed.keys import Stream, client_number, stream_generator


class Attendance(NamedTuple):
    """The invited clients, split into present, dropped and late."""

    present: list[str]
    dropped: list[str]
    late: list[str]


Attend = Callable[[int, Sequence[str]], Attendance]


class Faults(NamedTuple):
    """Faults of clients in a simulation.

    Attributes:
        dropout: probability that a client never answers, drawn anew each round.
        speed_spread: standard deviation of the logarithm of clients' seconds per step. A client keeps its
            speed over rounds. 0 makes all clients alike.
        deadline_steps: the round closes when a client of median speed has done this many steps.
        wanted: the server takes this many of the earliest answers; None takes all that are in time.
    """

    dropout: float = 0.0
    speed_spread: float = 0.0
    deadline_steps: float = math.inf
    wanted: int | None = None


def all_answer(round_index: int, asked: Sequence[str]) -> Attendance:
    """Let all invited clients answer."""
    return Attendance(list(asked), [], [])


def slowness(client_id: str, faults: Faults, seed: int) -> float:
    """Compute a client's seconds per step relative to a median client."""
    rng = stream_generator(Stream.SPEED, seed, client_number(client_id))
    return math.exp(faults.speed_spread * rng.standard_normal())


def attend(
    asked: Sequence[str], steps: Mapping[str, int], faults: Faults, *, seed: int, round_index: int
) -> Attendance:
    """Split the invited clients into those present, dropped and late.

    Args:
        asked: ids of the invited clients; their order is kept and decides nothing.
        steps: local steps of each.
        faults: what goes wrong.
        seed: the seed of the run.
        round_index: from 0.
    """
    dropped = [client for client in asked if _drops(client, faults, seed, round_index)]
    gone = set(dropped)
    finish = {
        client: steps[client] * slowness(client, faults, seed) for client in asked if client not in gone
    }
    in_time = sorted(
        (client for client, when in finish.items() if when <= faults.deadline_steps),
        # Ties are broken at random, anew each round.
        key=lambda client: (finish[client], _arrival(client, seed, round_index), client),
    )
    taken = set(in_time[: faults.wanted])
    return Attendance(
        [client for client in asked if client in taken],
        dropped,
        [client for client in finish if client not in taken],
    )


def _arrival(client_id: str, seed: int, round_index: int) -> float:
    return float(stream_generator(Stream.ARRIVAL, seed, round_index, client_number(client_id)).random())


def _drops(client_id: str, faults: Faults, seed: int, round_index: int) -> bool:
    if not faults.dropout:
        return False
    rng = stream_generator(Stream.DROPOUT, seed, round_index, client_number(client_id))
    return bool(rng.random() < faults.dropout)
