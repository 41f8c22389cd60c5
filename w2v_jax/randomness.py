"""Random streams: one key per (step, utterance, purpose), independent of batch shape.

Draws for an utterance have time as the leading axis. JAX's partitionable threefry makes such draws prefixes
of one another: a longer padded length, or another split into batches, gives the same numbers for the same
frame.
"""

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt


class Stream(enum.IntEnum):
    """The purpose of a random draw; each purpose has a stream of its own."""

    MASK = 0
    NEGATIVES = 1
    GUMBEL = 2
    DROPOUT = 3
    LAYER_DROP = 4
    SHUFFLE = 5


def stream_key(key: Key[Array, ""], stream: Stream) -> Key[Array, ""]:
    """Derive the key of one stream from the key of a step or an utterance."""
    return jax.random.fold_in(key, int(stream))


def utterance_keys(
    key: Key[Array, ""], utterance_id: UInt[Array, " batch"], stream: Stream
) -> Key[Array, " batch"]:
    """Derive one key per utterance of a batch: fold_in(fold_in(step key, utterance), stream)."""
    return jax.vmap(lambda u: stream_key(jax.random.fold_in(key, u), stream))(utterance_id)


def fold_in_all(keys: Key[Array, " batch"], data: int | Int[Array, ""]) -> Key[Array, " batch"]:
    """Fold the same number into every key of a batch."""
    return jax.vmap(lambda k: jax.random.fold_in(k, data))(keys)


def dropout(
    x: Float[Array, "batch time *rest"], rate: float, keys: Key[Array, " batch"] | None
) -> Float[Array, "batch time *rest"]:
    """Apply inverted dropout with a key per utterance; identity where `keys` is None or `rate` is 0."""
    keep = kept(rate, keys, x.shape[1:])
    return x if keep is None else drop(x, rate, keep)


def kept(
    rate: float, keys: Key[Array, " batch"] | None, shape: tuple[int, ...]
) -> Bool[Array, "batch time *rest"] | None:
    """Draw which values of each utterance, of shape [time, *rest], dropout keeps; None where it keeps all.

    The draw is packed into bits and unpacked again: otherwise XLA would keep two random words of each value
    for the backward pass.
    """
    if keys is None or rate == 0.0:
        return None
    drawn = jax.vmap(lambda k: jax.random.bernoulli(k, 1.0 - rate, shape))(keys)
    bits = jnp.packbits(drawn, axis=-1)
    return jnp.unpackbits(bits, axis=-1, count=shape[-1]).astype(jnp.bool_)


def drop(
    x: Float[Array, "batch time *rest"], rate: float, keep: Bool[Array, "batch time *rest"]
) -> Float[Array, "batch time *rest"]:
    """Set dropped values to zero and divide the kept ones by 1 - rate."""
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


def attention_dropout(
    weights: Float[Array, "batch head query time"],
    rate: float,
    keys: Key[Array, " batch"] | None,
    first_query: int | Int[Array, ""] = 0,
) -> Float[Array, "batch head query time"]:
    """Apply dropout to attention weights, with a key per utterance and query frame.

    Both time axes lead their draws, so that padding changes neither. `first_query` is the frame of the first
    row.
    """
    if keys is None or rate == 0.0:
        return weights
    _, heads, queries, times = weights.shape

    def draw(utterance_key):
        rows = first_query + jnp.arange(queries)
        query_keys = jax.vmap(lambda q: jax.random.fold_in(utterance_key, q))(rows)
        keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1.0 - rate, (times, heads)))(query_keys)
        return jnp.transpose(keep, (2, 0, 1))

    return jnp.where(jax.vmap(draw)(keys), weights / (1.0 - rate), jnp.zeros_like(weights))
