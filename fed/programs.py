"""The only place with a client axis: lanes (devices) x chunk (vmap) x scan over steps.

A group of lanes x chunk clients trains at the same time. Each lane is one device and holds `chunk`
clients side by side. A chunk of one runs without vmap, so that padded steps are skipped.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fed import aggregation, client, server
from fed.aggregation import Accumulator
from fed.client import Block, ClientState
from fed.cohort import ClientReport, RoundSettings, Shared, Verdict
from fed.lane_threads import for_lanes
from fed.placement import SHARDS, lanes_of_this_process, model_shardings, shard_spec
from fed.privacy.noise import clip, noisy_mean
from fed.protocols import FederationError, PyTree
from fed.server import ServerState

Read = Callable[[PyTree, PyTree], PyTree]

CLIENTS, EVERYWHERE = P("lanes"), P()  # split by client; the same on all devices


class Programs(NamedTuple):
    """The jitted programs of a round; each compiles once per shape."""

    start: Any
    block: Any
    fold: Any
    whole: Any  # start, one block and fold, for groups whose steps fit into one block
    step: Any
    empty: Any
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
        FederationError: privacy together with a rule that weighs clients by their data.
    """
    if settings.privacy is not None and settings.rule is not aggregation.uniform:
        raise FederationError(
            "privacy needs the uniform rule: weights that come from the data are not private"
        )
    layout = settings.layout
    held = np.array((devices or jax.devices())[: layout.lanes * layout.shards])
    mesh = Mesh(held.reshape(layout.lanes, layout.shards), ("lanes", SHARDS))
    here = lanes_of_this_process(mesh)
    functions = _RoundFunctions(settings, sums, mesh, read)
    program = functools.partial(_program, mesh)
    training = (CLIENTS, CLIENTS, EVERYWHERE, EVERYWHERE, EVERYWHERE)  # block, numbers, key, step, shared
    return Programs(
        start=program(functions.start, (EVERYWHERE, EVERYWHERE), CLIENTS),
        block=program(functions.block, (CLIENTS, *training), CLIENTS, donate=(0,)),
        fold=program(
            functions.fold,
            (CLIENTS, CLIENTS, EVERYWHERE, EVERYWHERE, CLIENTS),
            (CLIENTS, CLIENTS),
            donate=(0,),
        ),
        whole=program(
            functions.whole,
            (CLIENTS, EVERYWHERE, EVERYWHERE, *training, CLIENTS),
            (CLIENTS, CLIENTS, CLIENTS),
            donate=(0,),
        ),
        step=jax.jit(functions.placed_step, donate_argnums=0),
        empty=program(functions.empty, (EVERYWHERE, EVERYWHERE), CLIENTS),
        rows=slice(here.start * layout.chunk, here.stop * layout.chunk),
        mesh=mesh,
        by_client=NamedSharding(mesh, CLIENTS),
        replicated=NamedSharding(mesh, EVERYWHERE),
    )


def _program(mesh: Mesh, function: Callable, in_specs: Any, out_specs: Any, donate: Any = ()) -> Any:
    """A jitted function that runs in every lane; the compiler divides a lane's work among its shards."""
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, axis_names={"lanes"}, check_vma=False
    )
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return for_lanes(jax.jit(mapped, donate_argnums=donate), len(mesh.devices) if on_cpu else 1)


@dataclasses.dataclass(frozen=True, eq=False)  # jit compares functions, and sums have no hash
class _RoundFunctions:
    """Functions that the programs compute.

    All methods but the steps see one lane: leaves [client of the lane, ...].
    """

    settings: RoundSettings
    sums: PyTree
    mesh: Mesh
    read: Read | None

    def start(self, parameters: PyTree, objective_state: PyTree) -> ClientState:
        """Every client at the beginning of its round."""
        chunk = self.settings.layout.chunk
        fresh = client.start(self.settings.training, parameters, objective_state, self.sums)
        stacked = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (chunk, *leaf.shape)), fresh)
        return self._spread(stacked, 1)

    def block(self, state: ClientState, steps: Block, numbers, key, first_step, shared: Shared):
        """Every client after one block of its steps."""
        reading = {} if self.read is None else {"read": functools.partial(self.read, shared.data)}
        train = functools.partial(client.train_block, self.settings.training, **reading)
        trained = self._over_clients(train, (0, 0, 0, None, None, None))
        return self._spread(trained(state, steps, numbers, key, first_step, shared.anchor), 1)

    def fold(self, accumulator, state: ClientState, parameters, objective_state, data_weight):
        """Add the clients' updates and sums to the lane's; report on each client."""
        if self.settings.privacy is not None and jax.tree.leaves(objective_state):
            raise FederationError("an objective with a state of its own cannot be trained privately")
        judge = functools.partial(self._judge, parameters, objective_state)
        values, client_sums, report = self._over_clients(judge, (0, 0))(state, data_weight)
        old, old_sums = jax.tree.map(lambda leaf: leaf[0], accumulator)
        new = aggregation.add(old, values, report.log_weight)
        left_out = report.verdict != Verdict.ACCEPTED
        kept = jax.tree.map(lambda leaf: aggregation.zero_where(left_out, leaf).sum(0), client_sums)
        new_sums = jax.tree.map(jnp.add, old_sums, kept)
        return self._spread(jax.tree.map(lambda leaf: leaf[None], (new, new_sums)), 1), report

    def whole(
        self, accumulator, parameters, objective_state, steps: Block, numbers, key, first_step, shared, weight
    ):
        """`start`, one `block` and `fold` in one program."""
        state = self.block(self.start(parameters, objective_state), steps, numbers, key, first_step, shared)
        new, report = self.fold(accumulator, state, parameters, objective_state, weight)
        return new, report, state

    def empty(self, parameters: PyTree, objective_state: PyTree):
        """A lane's accumulator and sums before its first client."""
        accumulator = aggregation.empty((parameters, objective_state))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self.sums)
        return self._spread(jax.tree.map(lambda leaf: leaf[None], (accumulator, zeros)), 1)

    def step(self, state: ServerState, per_lane: tuple[Accumulator, PyTree], key: jax.Array):
        """Combine the lanes and step the server: (new state, sums, norm of the mean update)."""
        privacy = self.settings.privacy
        accumulators, lane_sums = per_lane
        accumulator = aggregation.combine(accumulators)
        if privacy is None:
            update, change = aggregation.finish(accumulator)
        else:
            update, change = aggregation.total(accumulator)
            update = noisy_mean(update, privacy, key)
        new = server.step(self.settings.server_optimizer, state, update, change)
        if privacy is None:
            # Without any update the model stays as it is: momentum alone must not move it.
            answered = accumulator.weight > 0
            kept = jax.tree.map(lambda after, before: jnp.where(answered, after, before), new, state)
            new = kept._replace(round_index=new.round_index)
        return new, jax.tree.map(lambda leaf: leaf.sum(0), lane_sums), optax.tree.norm(update)

    def placed_step(self, state: ServerState, per_lane: tuple[Accumulator, PyTree], key: jax.Array):
        """`step`, with its results on the devices where the next round wants them."""
        replicated = NamedSharding(self.mesh, EVERYWHERE)
        shapes = jax.eval_shape(self.step, state, per_lane, key)
        shardings = (model_shardings(self.mesh, shapes[0]), *jax.tree.map(lambda _: replicated, shapes[1:]))
        found = self.step(state, per_lane, key)
        return jax.tree.map(jax.lax.with_sharding_constraint, found, shardings)

    def _judge(self, parameters, objective_state, state: ClientState, data_weight):
        """One client's ((update, change of state), sums, report)."""
        privacy, max_update_norm = self.settings.privacy, self.settings.max_update_norm
        update = jax.tree.map(jnp.subtract, state.parameters, parameters)
        change = jax.tree.map(jnp.subtract, state.objective_state, objective_state)
        total, weight = state.last_loss
        loss = total / jnp.where(weight > 0, weight, 1.0)
        norm = optax.tree.norm(update)
        log_weight = self.settings.rule(loss, data_weight)
        finite = jnp.isfinite(loss) & jnp.isfinite(log_weight) & jnp.isfinite(norm)
        finite &= jnp.isfinite(optax.tree.norm(change))
        # A loss without weight belongs to padding, or to a client that learnt nothing. Its value of 0
        # would win a softmax over negative losses.
        verdict = jnp.select(
            [weight <= 0, ~finite, norm > max_update_norm],
            [jnp.int32(v) for v in (Verdict.NOTHING_LEARNT, Verdict.NOT_FINITE, Verdict.TOO_LARGE)],
            jnp.int32(Verdict.ACCEPTED),
        )
        log_weight = jnp.where(verdict == Verdict.ACCEPTED, log_weight, -jnp.inf)
        clipped = jnp.float32(0.0)
        if privacy is not None:
            update, clipped = clip(update, privacy)
        total, weight = state.sums["loss"]
        round_loss = total / jnp.where(weight > 0, weight, 1.0)
        report = ClientReport(loss, log_weight, verdict, norm, clipped, round_loss)
        return (update, change), state.sums, report

    def _over_clients(self, function: Callable, in_axes: tuple[int | None, ...]) -> Callable:
        """Map a function of one client over the lane's clients."""
        if self.settings.layout.chunk > 1:
            return jax.vmap(function, in_axes=in_axes)

        def single(*args):
            squeezed = [
                jax.tree.map(lambda leaf: leaf[0], arg) if axis == 0 else arg
                for arg, axis in zip(args, in_axes, strict=True)
            ]
            return jax.tree.map(lambda leaf: leaf[None], function(*squeezed))

        return single

    def _spread(self, tree: PyTree, leading: int) -> PyTree:
        """Spread each model of a tree over its lane's shards; `leading` axes come before a model's own."""
        shards = self.settings.layout.shards
        if shards == 1:
            return tree
        return jax.tree.map(
            lambda leaf: jax.lax.with_sharding_constraint(
                leaf, P(*[None] * leading, *shard_spec(leaf.shape[leading:], shards))
            ),
            tree,
        )
