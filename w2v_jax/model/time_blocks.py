"""Rows of a sequence, a block at a time: as many blocks as a width asks for, all of nearly that width."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped


class TimeBlocks(NamedTuple):
    """How a sequence is cut.

    Attributes:
        time: rows of the sequence.
        count: of blocks.
        width: rows of each; the last one may have some that were added.
    """

    time: int
    count: int
    width: int

    @property
    def starts(self) -> Int[Array, " block"]:
        """First row of each block."""
        return jnp.arange(self.count) * self.width

    def cut(self, values: Shaped[Array, "batch time ..."]) -> Shaped[Array, "block batch row ..."]:
        """The blocks of a sequence, one after another; rows that were added are zero."""
        more = self.count * self.width - self.time
        padded = jnp.pad(values, ((0, 0), (0, more), *[(0, 0)] * (values.ndim - 2)))
        return jnp.moveaxis(padded.reshape(-1, self.count, self.width, *values.shape[2:]), 1, 0)

    def join(self, blocks: Shaped[Array, "block batch row ..."]) -> Shaped[Array, "batch time ..."]:
        """The sequence that was cut."""
        whole = jnp.moveaxis(blocks, 0, 1)
        return whole.reshape(-1, self.count * self.width, *blocks.shape[3:])[:, : self.time]


def balanced(time: int, width: int | None) -> TimeBlocks:
    """Blocks of at most `width` rows, a single one if it is None, and as few rows added as there can be.

    Of 274 rows in blocks of 128 are made three blocks of 92, not three of 128 with 110 rows for nothing.
    """
    count = math.ceil(time / (width or time))
    return TimeBlocks(time, count, math.ceil(time / count))
