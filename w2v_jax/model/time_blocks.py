"""Cut the rows of a sequence into blocks of nearly equal width."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped


class TimeBlocks(NamedTuple):
    """A cut of a sequence into blocks.

    Attributes:
        time: rows of the sequence.
        count: number of blocks.
        width: rows of each block; the last block may have added rows.
    """

    time: int
    count: int
    width: int

    @property
    def starts(self) -> Int[Array, " block"]:
        """The first row of each block."""
        return jnp.arange(self.count) * self.width

    def cut(self, values: Shaped[Array, "batch time ..."]) -> Shaped[Array, "block batch row ..."]:
        """Stack the blocks of a sequence; added rows are zero."""
        more = self.count * self.width - self.time
        padded = jnp.pad(values, ((0, 0), (0, more), *[(0, 0)] * (values.ndim - 2)))
        return jnp.moveaxis(padded.reshape(-1, self.count, self.width, *values.shape[2:]), 1, 0)

    def join(self, blocks: Shaped[Array, "block batch row ..."]) -> Shaped[Array, "batch time ..."]:
        """Join blocks into the sequence again."""
        whole = jnp.moveaxis(blocks, 0, 1)
        return whole.reshape(-1, self.count * self.width, *blocks.shape[3:])[:, : self.time]


def balanced(time: int, width: int | None) -> TimeBlocks:
    """Cut into blocks of at most `width` rows (None: one block), with as few added rows as possible.

    For example, 274 rows and a width of 128 give three blocks of 92, not three of 128 with 110 added rows.
    """
    count = math.ceil(time / (width or time))
    return TimeBlocks(time, count, math.ceil(time / count))
