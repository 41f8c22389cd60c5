"""The functions that the programs of a round compute: the only place with a client axis.

Lanes (devices) x chunk (vmap) x scan over steps: a group of lanes x chunk clients trains at the same time. A
chunk of one runs without vmap, so that padded steps are skipped.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fed import aggregation, client, server
from fed.algorithm import Combined, Server, Trained, send_update, update_of
from fed.client import Block, ClientState
from fed.cohort import ClientReport, Folded, RoundSettings, Shared, Totals, Verdict
from fed.keys import message_key
from fed.placement import model_shardings, shard_spec
from fed.privacy.noise import clip, noisy_mean
from fed.protocols import FederationError, PyTree
from fed.server import ServerState

Read = Callable[[PyTree, PyTree], PyTree]


@dataclasses.dataclass(frozen=True, eq=False)  # jit compares functions, and sums have no hash
class RoundFunctions:
    """Functions that the programs compute.

    All methods but the steps see one lane: leaves [client of the lane, ...].
    """

    settings: RoundSettings
    sums: PyTree
    mesh: Mesh
    read: Read | None

    def start(self, sent: Server, objective_state: PyTree, kept: PyTree) -> ClientState:
        """Begin the round of every client."""
        settings = self.settings

        def one(own: PyTree) -> ClientState:
            return client.start(settings.training, settings.algorithm, sent, objective_state, own, self.sums)

        return self._spread(jax.vmap(one, axis_size=settings.layout.chunk)(kept), 1)

    def block(self, state: ClientState, steps: Block, numbers, key, first_step, shared: Shared):
        """Run one block of steps of every client."""
        reading = {} if self.read is None else {"read": functools.partial(self.read, shared.data)}
        train = functools.partial(
            client.train_block, self.settings.training, self.settings.algorithm, **reading
        )
        trained = self._over_clients(train, (0, 0, 0, None, None, None))
        return self._spread(trained(state, steps, numbers, key, first_step, shared.server), 1)

    def fold(self, totals, state: ClientState, sent: Server, objective_state, data_weight, numbers, key):
        """Add the clients' messages and sums to the lane's totals; report on each client."""
        if self.settings.privacy is not None and jax.tree.leaves(objective_state):
            raise FederationError("an objective with a state of its own cannot be trained privately")
        judge = functools.partial(_judge, self.settings, sent, objective_state, key)
        judged = self._over_clients(judge, (0, 0, 0))(state, data_weight, numbers)
        (messages, changes), client_sums, report, kept = judged
        left_out = report.verdict != Verdict.ACCEPTED
        client_sums, stacked = jax.tree.map(
            lambda leaf: aggregation.zero_where(left_out, leaf), (client_sums, messages)
        )
        streamed = self.settings.algorithm.combine is None
        old: Totals = jax.tree.map(lambda leaf: leaf[0], totals)
        new = Totals(
            aggregation.add(old.accumulator, (messages if streamed else (), changes), report.log_weight),
            jax.tree.map(lambda total, leaf: total + leaf.sum(0), old.sums, client_sums),
            old.clients + (~left_out).sum(dtype=jnp.float32),
        )
        new = self._spread(jax.tree.map(lambda leaf: leaf[None], new), 1)
        return new, Folded(report, () if streamed else stacked, kept)

    def whole(
        self,
        totals,
        sent,
        objective_state,
        kept,
        steps: Block,
        numbers,
        key,
        first_step,
        shared,
        weight,
    ):
        """Run `start`, one `block` and `fold` in one program."""
        begun = self.start(sent, objective_state, kept)
        state = self.block(begun, steps, numbers, key, first_step, shared)
        return *self.fold(totals, state, sent, objective_state, weight, numbers, key), state

    def empty(self, sent: Server, objective_state: PyTree):
        """Make a lane's totals before its first client."""
        messages = ()
        if self.settings.algorithm.combine is None:
            messages = jax.eval_shape(self.message, sent, objective_state)
        totals = Totals(
            aggregation.empty((messages, objective_state)),
            jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self.sums),
            jnp.float32(0.0),
        )
        return self._spread(jax.tree.map(lambda leaf: leaf[None], totals), 1)

    def step(self, state: ServerState, totals: Totals, stacked: Sequence, key: jax.Array, population):
        """Combine the lanes and step the server: (new state, sums, norm of the combined update).

        `stacked` has (messages, log weights) of each group, where the algorithm combines them itself.
        """
        privacy, algorithm = self.settings.privacy, self.settings.algorithm
        accumulator = aggregation.combine(totals.accumulator)
        if privacy is None:
            message, change = aggregation.finish(accumulator)
        else:
            message, change = aggregation.total(accumulator)
            message = noisy_mean(message, privacy, key)
        if algorithm.combine is not None:
            messages, log_weights = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *stacked)
            message = algorithm.combine(messages, log_weights)
            message = jax.tree.map(lambda leaf: jnp.where(accumulator.weight > 0, leaf, 0), message)
        # The number that answered would reveal the size of a private cohort.
        clients = totals.clients.sum() if privacy is None else jnp.float32(privacy.expected_clients)
        combined = Combined(message, clients, population)
        new = server.step(algorithm, state, combined, change)
        if privacy is None:
            # Without any update the model stays as it is: momentum alone must not move it.
            answered = accumulator.weight > 0
            kept = jax.tree.map(lambda after, before: jnp.where(answered, after, before), new, state)
            new = kept._replace(round_index=new.round_index)
        sums = jax.tree.map(lambda leaf: leaf.sum(0), totals.sums)
        return new, sums, optax.tree.norm(update_of(message))

    def placed_step(self, state: ServerState, *others):
        """Run `step`, and place its results where the next round wants them."""
        replicated = NamedSharding(self.mesh, P())
        shapes = jax.eval_shape(self.step, state, *others)
        shardings = (model_shardings(self.mesh, shapes[0]), *jax.tree.map(lambda _: replicated, shapes[1:]))
        return jax.tree.map(jax.lax.with_sharding_constraint, self.step(state, *others), shardings)

    def placed_broadcast(self, held: Server, key: jax.Array) -> PyTree:
        """Compute the parameters that the server sends, on the devices where the round wants them."""
        assert self.settings.algorithm.broadcast is not None
        sent = self.settings.algorithm.broadcast(held, key)
        return jax.tree.map(jax.lax.with_sharding_constraint, sent, model_shardings(self.mesh, sent))

    def message(self, sent: Server, objective_state: PyTree) -> PyTree:
        """Make a client's message, for its shapes."""
        kept = self.kept(sent.parameters)
        state = client.start(
            self.settings.training, self.settings.algorithm, sent, objective_state, kept, self.sums
        )
        return _send(self.settings, sent, state, jnp.uint32(0), jax.random.key(0))[0]

    def kept(self, parameters: PyTree) -> PyTree:
        """Make the state of a client before its first round; () where clients keep nothing."""
        made = self.settings.algorithm.client_init
        return () if made is None else made(self.settings.training, parameters)

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


def _all_finite(tree: PyTree) -> jax.Array:
    found = [
        jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    return jnp.array(found, bool).all()


def _send(settings: RoundSettings, sent: Server, state: ClientState, number, key) -> tuple[PyTree, PyTree]:
    """Make one client's (message, new state)."""
    steps, rates = state.done
    counted = jnp.maximum(steps, 1.0)  # padding has no steps; this avoids a division by zero
    return settings.algorithm.message(
        Trained(
            state.parameters,
            state.optimizer_state,
            state.memory,
            sent,
            counted,
            rates / counted,
            message_key(key, number),
        )
    )


def _judge(
    settings: RoundSettings, sent: Server, objective_state, key, state: ClientState, data_weight, number
):
    """Judge one client: ((message, change of state), sums, report, new state)."""
    privacy, max_update_norm = settings.privacy, settings.max_update_norm
    change = jax.tree.map(jnp.subtract, state.objective_state, objective_state)
    message, kept = _send(settings, sent, state, number, key)
    total, weight = state.last_loss
    loss = total / jnp.where(weight > 0, weight, 1.0)
    norm = optax.tree.norm(jax.tree.map(jnp.subtract, state.parameters, sent.parameters))
    log_weight = settings.algorithm.log_weight(loss, data_weight)
    finite = jnp.isfinite(loss) & jnp.isfinite(log_weight) & jnp.isfinite(norm)
    finite &= jnp.isfinite(optax.tree.norm(change))
    if settings.algorithm.message is not send_update:
        finite &= _all_finite((message, kept))
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
        message, clipped = clip(message, privacy)
    total, weight = state.sums["loss"]
    round_loss = total / jnp.where(weight > 0, weight, 1.0)
    report = ClientReport(loss, log_weight, verdict, norm, clipped, round_loss)
    return (message, change), state.sums, report, kept
