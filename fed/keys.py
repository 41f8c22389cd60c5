"""Random keys by seed, round, client and local step; never by position, chunk or count."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

ArrayLike = jax.Array | np.generic


def client_number(client_id: str) -> int:
    """A 32-bit identity of a client's name, the same in every process and cohort."""
    return zlib.crc32(client_id.encode())


def round_key(seed: int, round_index: int) -> jax.Array:
    """The key of a round."""
    return jax.random.fold_in(jax.random.key(seed), round_index)


def step_key(key: jax.Array, client: ArrayLike, local_step: ArrayLike) -> jax.Array:
    """The key of one local step: fold_in(fold_in(round key, client), step)."""
    return jax.random.fold_in(jax.random.fold_in(key, jnp.asarray(client)), jnp.asarray(local_step))
