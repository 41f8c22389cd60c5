"""Records of a round: its settings, its layout on the devices, and the report on each client.

The client axis itself is in `fed.engine.round_functions`.
"""

import enum
import math
from typing import NamedTuple

import jax

from fed.aggregation import Accumulator
from fed.algorithm import Algorithm, Server
from fed.client import LocalTraining
from fed.privacy.noise import Privacy
from fed.protocols import FederationError, PyTree


class Layout(NamedTuple):
    """The layout of a cohort: `lanes` side by side, `chunk` vmapped clients on each.

    A lane is one device, or `shards` devices that share its clients' models, for models that do not fit
    on one device.
    """

    lanes: int
    chunk: int
    shards: int = 1

    @property
    def group_size(self) -> int:
        """Clients that train at the same time."""
        return self.lanes * self.chunk


class RoundSettings(NamedTuple):
    """Settings from which the programs of a round are built.

    Attributes:
        training: how one client trains.
        algorithm: what clients begin with, descend along and send, and what the server makes of it.
        layout: lanes, chunk and shards.
        max_update_norm: an update of a larger Euclidean norm is left out.
        privacy: clip the updates and add noise to their sum; needs `aggregation.uniform` as the rule, and
            an algorithm whose clients send their updates and keep nothing.
    """

    training: LocalTraining
    algorithm: Algorithm
    layout: Layout
    max_update_norm: float = math.inf
    privacy: Privacy | None = None


class Shared(NamedTuple):
    """Values that all clients of a round read and none changes.

    Attributes:
        server: the model that the round sends, and the algorithm's state. FedAvg's steps read neither; jit
            drops unused arguments.
        data: `protocols.Resident.data`, if the source has resident data.
    """

    server: Server
    data: PyTree = ()


class Totals(NamedTuple):
    """A lane's running totals over the clients of a round.

    Attributes:
        accumulator: of (messages, changes of the objective's state); without the messages where the
            algorithm combines them itself.
        sums: the objective's sums.
        clients: clients that counted, float32.
    """

    accumulator: Accumulator
    sums: PyTree
    clients: jax.Array


class Verdict(enum.IntEnum):
    """The verdict on a client's update: it counts, or the reason why it does not."""

    ACCEPTED = 0
    NOTHING_LEARNT = 1  # its loss has no weight
    NOT_FINITE = 2  # its loss, weight, update, message, objective state, or what it would keep
    TOO_LARGE = 3  # its update's norm


class ClientReport(NamedTuple):
    """The report on each client of a group after its round; leaves [client]."""

    loss: jax.Array  # mean over the steps that the plan reports, which the rule of aggregation sees
    log_weight: jax.Array  # -inf where left out
    verdict: jax.Array  # int32, a Verdict
    update_norm: jax.Array  # before clipping
    clipped: jax.Array  # share of its arrays that privacy scaled down
    round_loss: jax.Array  # mean over all local steps


class Folded(NamedTuple):
    """The clients of a group after their round; leaves [client, ...].

    Attributes:
        report: on each client.
        messages: zero where a client does not count; () where the algorithm takes the weighted mean.
        kept: the clients' new states; () where clients keep nothing.
    """

    report: ClientReport
    messages: PyTree
    kept: PyTree


def choose_layout(
    clients_per_round: int, *, lanes: int | None = None, chunk: int | None = None, shards: int = 1
) -> Layout:
    """Choose lanes and chunk for a cohort; given values are kept.

    By default every device is a lane with one client at a time, which is fastest on CPU
    (docs/decisions/0003). `fed.chunks` measures how many clients to vmap on an accelerator.

    Args:
        clients_per_round: more lanes than clients would stand idle.
        lanes: devices, or groups of `shards` devices, side by side.
        chunk: vmapped clients on each lane.
        shards: devices that share a lane's models.

    Raises:
        FederationError: there are fewer devices than lanes x shards, or the chunk is below 1.
    """
    if not 1 <= shards <= jax.device_count():
        raise FederationError(
            f"shards must be between 1 and {jax.device_count()} (the devices here), got {shards}"
        )
    devices = jax.device_count() // shards
    if lanes is not None and not 1 <= lanes <= devices:
        of = f" of {shards}" if shards > 1 else ""
        raise FederationError(f"lanes{of} must be between 1 and {devices} (the devices here), got {lanes}")
    if chunk is not None and chunk < 1:
        raise FederationError(f"chunk must be at least 1, got {chunk}")
    # Each of several processes has its own lanes, even if there are too few clients to fill them.
    lanes = lanes or (min(devices, clients_per_round) if jax.process_count() == 1 else devices)
    return Layout(lanes, chunk or 1, shards)
