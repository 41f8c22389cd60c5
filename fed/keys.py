"""Random keys by seed, round, client and local step; never by position, chunk or count."""

import enum
import zlib

import jax
import jax.numpy as jnp
import numpy as np

ArrayLike = jax.Array | np.generic


class Draw(enum.IntEnum):
    """What a NumPy generator of a run is for; never zero, since SeedSequence ignores trailing zeros."""

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


# Rounds that never come, for the keys of a run that belong to no round.
_PRIVACY_NOISE, _INITIAL, _EVALUATION = 2**31 - 3, 2**31 - 2, 2**31 - 1


def generator(draw: Draw, *identity: int) -> np.random.Generator:
    """A NumPy generator for one purpose of a run, from non-negative integers such as the seed."""
    return np.random.default_rng(np.random.SeedSequence((int(draw), *identity)))


def initial_key(seed: int) -> jax.Array:
    """The key of a run's initial parameters."""
    return round_key(seed, _INITIAL)


def evaluation_key(seed: int) -> jax.Array:
    """The fixed key of all evaluations of a run."""
    return round_key(seed, _EVALUATION)


def client_number(client_id: str) -> int:
    """A 32-bit identity of a client's name, the same in every process and cohort."""
    return zlib.crc32(client_id.encode("utf-8", "surrogateescape"))


def round_key(seed: int, round_index: int) -> jax.Array:
    """The key of a round."""
    return jax.random.fold_in(jax.random.key(seed), round_index)


def noise_key(seed: int, round_index: int) -> jax.Array:
    """The key of the noise that makes a round's mean update private."""
    return jax.random.fold_in(round_key(seed, _PRIVACY_NOISE), round_index)


def step_key(key: jax.Array, client: ArrayLike, local_step: ArrayLike) -> jax.Array:
    """The key of one local step: fold_in(fold_in(round key, client), step).

    Args:
        key: of `round_key`.
        client: uint32 of `client_number`.
        local_step: int32, from 0 in every round.
    """
    return jax.random.fold_in(jax.random.fold_in(key, jnp.asarray(client)), jnp.asarray(local_step))
