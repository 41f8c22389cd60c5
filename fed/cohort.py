"""The only place with a client axis: lanes (devices) x chunk (vmap) x scan over steps.

A group of lanes x chunk clients trains at a time. Each lane is one device and holds `chunk`
clients side by side; a chunk of one runs without vmap, so padded steps are truly skipped.
"""

import enum
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fed import aggregation, client, server
from fed.aggregation import Accumulator, LogWeight
from fed.client import Block, ClientState, LocalTraining
from fed.lane_threads import for_lanes
from fed.placement import SHARDS, lanes_of_this_process, model_shardings, shard_spec
from fed.privacy.noise import Privacy, clip, noisy_mean
from fed.protocols import FederationError, PyTree
from fed.server import ServerState


class Layout(NamedTuple):
    """How a cohort is laid out: `lanes` side by side, `chunk` vmapped clients on each.

    A lane is one device, or `shards` of them that share its clients' models, for models that one device
    does not hold.
    """

    lanes: int
    chunk: int
    shards: int = 1

    @property
    def group_size(self) -> int:
        """Clients that train at the same time."""
        return self.lanes * self.chunk


def choose_layout(
    clients_per_round: int, *, lanes: int | None = None, chunk: int | None = None, shards: int = 1
) -> Layout:
    """Lanes and chunk for a cohort; given values are kept.

    Every device is a lane with one client at a time, which is the fastest on CPU (docs/decisions/0003); how
    many to vmap on an accelerator is measured by `fed.chunks`.

    Args:
        clients_per_round: more lanes than these would stand idle.
        lanes: devices, or groups of `shards` devices, side by side.
        chunk: clients vmapped on each.
        shards: devices that share a lane's models.

    Raises:
        FederationError: more lanes and shards asked for than there are devices, or a chunk below 1.
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
    # Every process has lanes of its own, some of them padding where there are few clients.
    lanes = lanes or (min(devices, clients_per_round) if jax.process_count() == 1 else devices)
    return Layout(lanes, chunk or 1, shards)


class Shared(NamedTuple):
    """What all clients of a round look at and none changes.

    Attributes:
        anchor: the round's first parameters. FedProx alone looks at them; an argument that is not looked
            at is dropped.
        data: of `protocols.Resident`, where a source has them.
    """

    anchor: PyTree
    data: PyTree = ()


class Verdict(enum.IntEnum):
    """Whether a client's update counts, and else why not."""

    ACCEPTED = 0
    NOTHING_LEARNT = 1  # its loss has no weight
    NOT_FINITE = 2  # its loss, its weight, its update or its objective state
    TOO_LARGE = 3  # its update's norm


class ClientReport(NamedTuple):
    """What is known of each client of a group after its round; leaves [client]."""

    loss: jax.Array  # mean over the steps that the plan reports, which rules of aggregation see
    log_weight: jax.Array  # -inf where left out
    verdict: jax.Array  # int32, a Verdict
    update_norm: jax.Array  # before clipping
    clipped: jax.Array  # share of its arrays that privacy scaled down
    round_loss: jax.Array  # mean over all local steps


class Programs(NamedTuple):
    """The jitted programs of a round; each compiles once per shape."""

    start: Any
    block: Any
    fold: Any
    whole: Any  # start, one block and fold, where a group's steps are no more than a block
    step: Any
    empty: Any
    rows: slice  # of a group: the clients whose lanes this process owns
    mesh: Mesh
    by_client: NamedSharding
    replicated: NamedSharding


def build_programs(
    training: LocalTraining,
    rule: LogWeight,
    server_optimizer: optax.GradientTransformation,
    layout: Layout,
    sums: PyTree,
    devices: Sequence[Any] | None = None,
    *,
    max_update_norm: float = math.inf,
    privacy: Privacy | None = None,
    read: Callable[[PyTree, PyTree], PyTree] | None = None,
) -> Programs:
    """Compile-on-demand programs for a layout.

    Args:
        training: how one client trains.
        rule: a client's log weight from its loss and data weight.
        server_optimizer: applied to the negative mean update.
        layout: lanes and chunk.
        sums: abstract sums of one step (jax.eval_shape), for their shapes.
        devices: the lanes; by default the first ones of jax.devices().
        max_update_norm: larger updates are left out.
        privacy: clip updates and add noise to their sum. `rule` is then `aggregation.uniform`.
        read: of `protocols.Resident`, where a source has it.

    Raises:
        FederationError: privacy with a rule that weighs clients by their data.
    """
    if privacy is not None and rule is not aggregation.uniform:
        raise FederationError(
            "privacy needs the uniform rule: weights that come from the data are not private"
        )
    held = np.array((devices or jax.devices())[: layout.lanes * layout.shards])
    mesh = Mesh(held.reshape(layout.lanes, layout.shards), ("lanes", SHARDS))
    here = lanes_of_this_process(mesh)
    clients, everywhere = P("lanes"), P()

    def spread(tree, leading: int):
        """Each model of a tree over its lane's shards; `leading` axes come before a model's own."""
        if layout.shards == 1:
            return tree
        return jax.tree.map(
            lambda leaf: jax.lax.with_sharding_constraint(
                leaf, P(*[None] * leading, *shard_spec(leaf.shape[leading:], layout.shards))
            ),
            tree,
        )

    def over_clients(function, in_axes):
        """`function` of one client -> of this lane's clients, stacked."""
        if layout.chunk > 1:
            return jax.vmap(function, in_axes=in_axes)

        def single(*args):
            squeezed = [
                jax.tree.map(lambda leaf: leaf[0], arg) if axis == 0 else arg
                for arg, axis in zip(args, in_axes, strict=True)
            ]
            return jax.tree.map(lambda leaf: leaf[None], function(*squeezed))

        return single

    def program(function, in_specs, out_specs, donate=()):
        # Within a lane the compiler itself divides the work among shards.
        mapped = jax.shard_map(
            function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, axis_names={"lanes"}, check_vma=False
        )
        jitted = jax.jit(mapped, donate_argnums=donate)
        return for_lanes(jitted, layout.lanes if held.flat[0].platform == "cpu" else 1)

    def start(parameters, objective_state):
        fresh = client.start(training, parameters, objective_state, sums)
        stacked = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (layout.chunk, *leaf.shape)), fresh)
        return spread(stacked, 1)

    def block(state: ClientState, steps: Block, numbers, key, first_step, shared: Shared):
        reading = {} if read is None else {"read": functools.partial(read, shared.data)}
        train = functools.partial(client.train_block, training, **reading)
        trained = over_clients(train, (0, 0, 0, None, None, None))
        return spread(trained(state, steps, numbers, key, first_step, shared.anchor), 1)

    def fold(accumulator, state: ClientState, parameters, objective_state, data_weight):
        if privacy is not None and jax.tree.leaves(objective_state):
            raise FederationError("an objective with a state of its own cannot be trained privately")

        def one(state: ClientState, data_weight):
            update = jax.tree.map(jnp.subtract, state.parameters, parameters)
            change = jax.tree.map(jnp.subtract, state.objective_state, objective_state)
            total, weight = state.last_loss
            loss = total / jnp.where(weight > 0, weight, 1.0)
            norm = optax.tree.norm(update)
            log_weight = rule(loss, data_weight)
            finite = jnp.isfinite(loss) & jnp.isfinite(log_weight) & jnp.isfinite(norm)
            finite &= jnp.isfinite(optax.tree.norm(change))
            # A loss without weight: padding in place of a client, or a client that learnt nothing. Its
            # loss of 0 would win a softmax.
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

        values, client_sums, report = over_clients(one, (0, 0))(state, data_weight)
        old, old_sums = jax.tree.map(lambda leaf: leaf[0], accumulator)
        new = aggregation.add(old, values, report.log_weight)
        left_out = report.verdict != Verdict.ACCEPTED
        kept = jax.tree.map(lambda leaf: aggregation.zero_where(left_out, leaf).sum(0), client_sums)
        new_sums = jax.tree.map(jnp.add, old_sums, kept)
        return spread(jax.tree.map(lambda leaf: leaf[None], (new, new_sums)), 1), report

    def whole(
        accumulator, parameters, objective_state, steps: Block, numbers, key, first_step, shared, data_weight
    ):
        state = block(start(parameters, objective_state), steps, numbers, key, first_step, shared)
        new, report = fold(accumulator, state, parameters, objective_state, data_weight)
        return new, report, state

    def empty(parameters, objective_state):
        accumulator = aggregation.empty((parameters, objective_state))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sums)
        return spread(jax.tree.map(lambda leaf: leaf[None], (accumulator, zeros)), 1)

    def step(state: ServerState, per_lane: tuple[Accumulator, PyTree], key):
        accumulators, lane_sums = per_lane
        accumulator = aggregation.combine(accumulators)
        if privacy is None:
            update, change = aggregation.finish(accumulator)
        else:
            update, change = aggregation.total(accumulator)
            update = noisy_mean(update, privacy, key)
        new = server.step(server_optimizer, state, update, change)
        if privacy is None:
            # A round that nobody reached teaches nothing; momentum is no news either.
            answered = accumulator.weight > 0
            kept = jax.tree.map(lambda after, before: jnp.where(answered, after, before), new, state)
            new = kept._replace(round_index=new.round_index)
        return new, jax.tree.map(lambda leaf: leaf.sum(0), lane_sums), optax.tree.norm(update)

    def stepped(state: ServerState, per_lane, key):
        """`step` with its results where the next round wants them."""
        shapes = jax.eval_shape(step, state, per_lane, key)
        shardings = (model_shardings(mesh, shapes[0]), *jax.tree.map(lambda _: everywhere_here, shapes[1:]))
        found = step(state, per_lane, key)
        return jax.tree.map(jax.lax.with_sharding_constraint, found, shardings)

    everywhere_here = NamedSharding(mesh, everywhere)
    return Programs(
        start=program(start, (everywhere, everywhere), clients),
        block=program(
            block, (clients, clients, clients, everywhere, everywhere, everywhere), clients, donate=(0,)
        ),
        fold=program(
            fold,
            (clients, clients, everywhere, everywhere, clients),
            (clients, clients),
            donate=(0,),
        ),
        whole=program(
            whole,
            (clients, everywhere, everywhere, clients, clients, everywhere, everywhere, everywhere, clients),
            (clients, clients, clients),
            donate=(0,),
        ),
        step=jax.jit(stepped, donate_argnums=0),
        empty=program(empty, (everywhere, everywhere), clients),
        rows=slice(here.start * layout.chunk, here.stop * layout.chunk),
        mesh=mesh,
        by_client=NamedSharding(mesh, clients),
        replicated=everywhere_here,
    )
