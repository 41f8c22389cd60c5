"""A few values of every array cross, and the others as zeros: the largest, or random ones."""

import jax
import jax.numpy as jnp

from fed.compression.codecs import Codec, Wire
from fed.protocols import FederationError


def top_k(share: float) -> Codec:
    """Send the values of the largest magnitude of every array (Aji and Heafield 2017, arXiv 1704.05021).

    Places (int32) and values (float32) cross.

    Args:
        share: of the values of each array that cross, above 0 and at most 1; at least one value crosses.
    """
    _check(share)

    def encode(array: jax.Array, key: jax.Array) -> Wire:
        del key
        flat = array.reshape(-1).astype(jnp.float32)
        places = jax.lax.top_k(jnp.abs(flat), _count(share, array.size))[1]
        return places, flat[places]

    def decode(wire: Wire, like: jax.ShapeDtypeStruct) -> jax.Array:
        places, values = wire
        return _scattered(places, values, like)

    return Codec(f"topk:{share:g}", encode, decode, sparse=True)


def random_mask(share: float, unbiased: bool = False) -> Codec:
    """Send values at random places of every array (Konecny et al. 2016, arXiv 1610.05492).

    The k places are drawn one from each of k consecutive stretches of equal length, or of lengths that
    differ by one. A seed of 8 bytes crosses, from which the server draws the same places, with
    the values (float32).

    Args:
        share: of the values of each array that cross, above 0 and at most 1; at least one value crosses.
        unbiased: multiply each value by the length of its stretch, so that the mean over seeds is the
            array. This suits updates without error feedback, which needs the values as they are.
    """
    _check(share)

    def encode(array: jax.Array, key: jax.Array) -> Wire:
        seed = jax.random.bits(key, (2,), jnp.uint32)
        places, lengths = _drawn(seed, array.size, share)
        values = array.reshape(-1).astype(jnp.float32)[places]
        return seed, values * lengths.astype(jnp.float32) if unbiased else values

    def decode(wire: Wire, like: jax.ShapeDtypeStruct) -> jax.Array:
        seed, values = wire
        return _scattered(_drawn(seed, like.size, share)[0], values, like)

    return Codec(f"mask:{share:g}", encode, decode, sparse=True, expands=unbiased and share < 1)


def _check(share: float) -> None:
    if not 0 < share <= 1:
        raise FederationError(f"the share of values that cross must be above 0 and at most 1, got {share:g}")


def _count(share: float, size: int) -> int:
    return min(size, max(1, round(share * size)))


def _drawn(seed: jax.Array, size: int, share: float) -> tuple[jax.Array, jax.Array]:
    """Draw one place from each stretch: (places, lengths of the stretches), int32."""
    count = _count(share, size)
    length, longer = divmod(size, max(count, 1))
    index = jnp.arange(count, dtype=jnp.int32)
    starts = index * length + jnp.minimum(index, longer)
    lengths = length + (index < longer).astype(jnp.int32)
    key = jax.random.wrap_key_data(seed, impl="threefry2x32")
    return starts + jax.random.randint(key, (count,), jnp.zeros_like(lengths), lengths), lengths


def _scattered(places: jax.Array, values: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
    flat = jnp.zeros(like.size, jnp.float32).at[places].set(values, unique_indices=True)
    return flat.reshape(like.shape).astype(like.dtype)
