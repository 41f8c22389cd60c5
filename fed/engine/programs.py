"""The jitted programs of a round, and where their arrays are on the mesh of devices.

Each lane is one device, or several with shards, and holds `chunk` clients side by side.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fed import aggregation
from fed.algorithm import send_update
from fed.cohort import RoundSettings
from fed.engine.lane_threads import for_lanes
from fed.engine.round_functions import Read, RoundFunctions
from fed.placement import SHARDS, lanes_of_this_process
from fed.protocols import FederationError, PyTree

CLIENTS, EVERYWHERE = P("lanes"), P()  # split by client; the same on all devices


class Programs(NamedTuple):
    """The jitted programs of a round; each compiles once per shape."""

    start: Any
    block: Any
    fold: Any
    whole: Any  # start, one block and fold, for groups whose steps fit into one block
    step: Any
    empty: Any
    broadcast: Any  # None where the server sends its own parameters
    streamed: bool  # messages are accumulated client by client, and not kept
    message: Any  # one client's, for its shapes
    kept: Any  # parameters -> a client's state before its first round
    rows: slice  # of a group: the clients whose lanes this process owns
    mesh: Mesh
    by_client: NamedSharding
    replicated: NamedSharding


def build_programs(
    settings: RoundSettings,
    sums: PyTree,
    *,
    devices: Sequence[Any] | None = None,
    read: Read | None = None,
) -> Programs:
    """Build the programs of a round; each compiles at its first call.

    Args:
        settings: how clients train, how their updates are combined, and the layout.
        sums: abstract sums of one step (`jax.eval_shape`), for their shapes.
        devices: the lanes' devices; None takes the first ones of `jax.devices()`.
        read: `protocols.Resident.read`, if the source has resident data.

    Raises:
        FederationError: privacy together with an algorithm that weighs clients by their data, or whose
            clients send more than their updates.
    """
    if settings.privacy is not None:
        _check_private(settings.algorithm)
    layout, algorithm = settings.layout, settings.algorithm
    held = np.array((devices or jax.devices())[: layout.lanes * layout.shards])
    mesh = Mesh(held.reshape(layout.lanes, layout.shards), ("lanes", SHARDS))
    here = lanes_of_this_process(mesh)
    functions = RoundFunctions(settings, sums, mesh, read)
    program = functools.partial(_program, mesh)
    model = (EVERYWHERE, EVERYWHERE)  # server, objective state
    training = (CLIENTS, CLIENTS, EVERYWHERE, EVERYWHERE, EVERYWHERE)  # block, numbers, key, step, shared
    return Programs(
        start=program(functions.start, (*model, CLIENTS), CLIENTS),
        block=program(functions.block, (CLIENTS, *training), CLIENTS, donate=(0,)),
        fold=program(
            functions.fold,
            (CLIENTS, CLIENTS, *model, CLIENTS, CLIENTS, EVERYWHERE),
            (CLIENTS, CLIENTS),
            donate=(0,),
        ),
        whole=program(
            functions.whole,
            (CLIENTS, *model, CLIENTS, *training, CLIENTS),
            (CLIENTS, CLIENTS, CLIENTS),
            donate=(0,),
        ),
        step=jax.jit(functions.placed_step, donate_argnums=0),
        empty=program(functions.empty, model, CLIENTS),
        broadcast=jax.jit(functions.placed_broadcast) if algorithm.broadcast is not None else None,
        streamed=algorithm.combine is None,
        message=functions.message,
        kept=functions.kept,
        rows=slice(here.start * layout.chunk, here.stop * layout.chunk),
        mesh=mesh,
        by_client=NamedSharding(mesh, CLIENTS),
        replicated=NamedSharding(mesh, EVERYWHERE),
    )


def _check_private(algorithm: Any) -> None:
    """Refuse an algorithm for which the noise of `fed.privacy` would not be enough."""
    if algorithm.log_weight is not aggregation.uniform:
        raise FederationError(
            "privacy needs the uniform rule: weights that come from the data are not private"
        )
    if algorithm.message is not send_update or algorithm.combine is not None or algorithm.client_init:
        raise FederationError(
            "privacy needs an algorithm whose clients send their updates alone and keep nothing, and whose "
            "server takes their mean"
        )


def _program(mesh: Mesh, function: Callable, in_specs: Any, out_specs: Any, donate: Any = ()) -> Any:
    """Make a jitted function that runs in every lane; the compiler divides a lane's work among its shards."""
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, axis_names={"lanes"}, check_vma=False
    )
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return for_lanes(jax.jit(mapped, donate_argnums=donate), len(mesh.devices) if on_cpu else 1)
