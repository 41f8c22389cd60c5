"""Uniform quantisation with stochastic rounding (QSGD, Alistarh et al. 2017, arXiv 1610.02132)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from fed.compression.codecs import Codec, Wire
from fed.protocols import FederationError

BLOCK = 64  # values that share a scale


def quantised(bits: int, block: int = BLOCK) -> Codec:
    """Round every value at random to one of 2^bits levels, so that its mean is kept.

    The levels are spaced evenly from -max to max, where max is the largest absolute value of a block of
    consecutive values. They are symmetric, and none of them is zero. At 2 bits this leaves about half the
    error of the three levels -max, 0 and max on normally distributed values: small enough for error
    feedback, with which the three would send errors that grow. A block of zeros stays zero.

    Codes cross, packed into bytes from the lowest bits on, and one float32 a block: 2.5 bits a value for 2
    bits in blocks of 64.

    Args:
        bits: 2, 4 or 8.
        block: values that share a scale; a multiple of 4.
    """
    if bits not in (2, 4, 8) or block < 4 or block % 4:
        raise FederationError(
            f"quantisation takes 2, 4 or 8 bits and blocks of a multiple of 4, got {bits} bits in {block}"
        )
    top, a_byte = 2**bits - 1, 8 // bits
    shifts = np.arange(a_byte, dtype=np.uint8)[None] * np.uint8(bits)

    def encode(array: jax.Array, key: jax.Array) -> Wire:
        rows = _rows(array.reshape(-1).astype(jnp.float32), block)
        # Levels are two units apart. A quotient by a constant would not round alike in all programs.
        unit = jnp.abs(rows).max(1, keepdims=True) * np.float32(1 / top)
        place = (rows / jnp.where(unit == 0, 1.0, unit) + top) * 0.5
        drawn = jnp.floor(place + jax.random.uniform(key, rows.shape))
        codes = jnp.clip(drawn, 0, top).astype(jnp.uint8).reshape(-1, a_byte)
        packed = jnp.left_shift(codes, shifts).sum(1, dtype=jnp.uint8)
        return packed[: math.ceil(array.size / a_byte)], unit[:, 0]

    def decode(wire: Wire, like: jax.ShapeDtypeStruct) -> jax.Array:
        packed, unit = wire
        codes = jnp.right_shift(packed[:, None], shifts) & np.uint8(top)
        levels = 2.0 * codes.reshape(-1)[: like.size].astype(jnp.float32) - top
        values = _rows(levels, block) * unit[:, None]
        return values.reshape(-1)[: like.size].reshape(like.shape).astype(like.dtype)

    return Codec(f"q{bits}", encode, decode)


def _rows(flat: jax.Array, block: int) -> jax.Array:
    """Fold a vector into rows of `block` values, with zeros after the last."""
    return jnp.pad(flat, (0, -len(flat) % block)).reshape(-1, block)
