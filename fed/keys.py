"""Random keys by seed, round, client and local step; never by position, chunk or count."""

import enum
import zlib

import jax
import jax.numpy as jnp
import numpy as np

ArrayLike = jax.Array | np.generic


class Stream(enum.IntEnum):
    """The independent streams of random numbers that a run draws on the host, by purpose.

    No number is zero, since SeedSequence ignores trailing zeros.
    """

    PARTITION = 1
    SAMPLING = 2
    HELDOUT = 3
    CLIENT_BATCHES = 4
    CENTRAL_BATCHES = 5
    CORRUPTED_CLIENTS = 6
    CORRUPTION_NOISE = 7
    SPEED = 8
    DROPOUT = 9
    ARRIVAL = 10


# Keys that belong to no round take the numbers of rounds that no run reaches.
_BROADCAST, _PRIVACY_NOISE, _INITIAL, _EVALUATION = 2**31 - 4, 2**31 - 3, 2**31 - 2, 2**31 - 1
_MESSAGE = 2**31 - 1  # a local step that no client reaches


def stream_generator(stream: Stream, *identity: int) -> np.random.Generator:
    """Make the NumPy generator of one stream.

    Args:
        stream: what the numbers are for.
        identity: non-negative integers that tell one use from another, such as seed and round.
    """
    return np.random.default_rng(np.random.SeedSequence((int(stream), *identity)))


def initial_key(seed: int) -> jax.Array:
    """Make the key of a run's initial parameters."""
    return round_key(seed, _INITIAL)


def evaluation_key(seed: int) -> jax.Array:
    """Make the key that all evaluations of a run share."""
    return round_key(seed, _EVALUATION)


def client_number(client_id: str) -> int:
    """Hash a client's name to 32 bits, the same in every process and cohort (CRC-32)."""
    return zlib.crc32(client_id.encode("utf-8", "surrogateescape"))


def round_key(seed: int, round_index: int) -> jax.Array:
    """Make the key of a round."""
    return jax.random.fold_in(jax.random.key(seed), round_index)


def noise_key(seed: int, round_index: int) -> jax.Array:
    """Make the key of the noise that makes a round's mean update private."""
    return jax.random.fold_in(round_key(seed, _PRIVACY_NOISE), round_index)


def broadcast_key(seed: int, round_index: int) -> jax.Array:
    """Make the key of what the server draws before it sends its model."""
    return jax.random.fold_in(round_key(seed, _BROADCAST), round_index)


def message_key(key: jax.Array, client: ArrayLike) -> jax.Array:
    """Make the key of what a client draws before it sends its message; arguments as of `step_key`."""
    return step_key(key, client, np.int32(_MESSAGE))


def step_key(key: jax.Array, client: ArrayLike, local_step: ArrayLike) -> jax.Array:
    """Make the key of one local step: fold_in(fold_in(round key, client), step).

    Args:
        key: from `round_key`.
        client: uint32 from `client_number`.
        local_step: int32, from 0 in every round.
    """
    return jax.random.fold_in(jax.random.fold_in(key, jnp.asarray(client)), jnp.asarray(local_step))
