"""CTC heads: linear blocks with batch normalisation over valid frames, then the tokens' scores."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from w2v_jax.model.layers import EPSILON, Linear, Scoped, broadcast_last
from w2v_jax.model.products import ComputeDtype
from w2v_jax.randomness import dropout, fold_in_all

STATISTICS_MOMENTUM = 0.1
INITIAL_BLANKS = 6.0  # frames of blank for each frame of another token, in the initial bias
DROPPED_BLOCKS = 2  # the first two blocks end in dropout

Statistics = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Shape of a CTC head: SpeechBrain's Italian recipe by default; no blocks make a linear probe.

    Attributes:
        num_tokens: scores per frame, the blank (0) included.
        num_blocks: Linear, batch normalisation, leaky ReLU; dropout after the first two.
        width: of the blocks.
        dropout: rate after a block.
    """

    num_tokens: int
    num_blocks: int = 3
    width: int = 1024
    dropout: float = 0.15


class FrameNorm(Scoped):
    """Batch normalisation over the valid frames of a batch, eps 1e-5, in fp32.

    Running statistics are arguments and results, not parameters. They are exponential averages with momentum
    0.1; the variance is unbiased, as in torch.
    """

    def __init__(self, dim: int):
        self.scale = nnx.Param(jnp.ones(dim))
        self.bias = nnx.Param(jnp.zeros(dim))

    def __call__(
        self,
        x: Float[Array, "batch time dim"],
        valid: Bool[Array, "batch time"],
        statistics: dict[str, Float[Array, " dim"]],
        training: bool,
    ) -> tuple[Float[Array, "batch time dim"], dict[str, Float[Array, " dim"]]]:
        mean, variance = statistics["mean"], statistics["variance"]
        if training:
            share = valid.astype(x.dtype)[..., None]
            frames = share.sum()
            count = jnp.maximum(frames, 1.0)
            batch_mean = (x * share).sum((0, 1)) / count
            centred = (x - broadcast_last(batch_mean, x)) * share
            batch_variance = jnp.square(centred).sum((0, 1)) / count
            unbiased = batch_variance * count / jnp.maximum(count - 1.0, 1.0)
            # A batch without a valid frame leaves the averages as they are.
            pace = jnp.where(frames > 0, STATISTICS_MOMENTUM, 0.0)
            statistics = jax.lax.stop_gradient(
                {
                    "mean": mean + pace * (batch_mean - mean),
                    "variance": variance + pace * (unbiased - variance),
                }
            )
            mean, variance = batch_mean, batch_variance
        y = (x - broadcast_last(mean, x)) * broadcast_last(jax.lax.rsqrt(variance + EPSILON), x)
        return y * broadcast_last(self.scale[...], y) + broadcast_last(self.bias[...], y), statistics


class HeadBlock(Scoped):
    """Linear, batch normalisation, leaky ReLU."""

    def __init__(self, in_dim: int, width: int, key: Key[Array, ""], dtype: ComputeDtype):
        self.linear = Linear(in_dim, width, key, dtype=dtype, zero_bias=False)
        self.norm = FrameNorm(width)

    def __call__(self, x, valid, statistics, training):
        y, statistics = self.norm(self.linear(x), valid, statistics, training)
        return jax.nn.leaky_relu(y), statistics


class CTCHead(Scoped):
    """Scores of tokens for every frame. The input is normalised first."""

    def __init__(self, in_dim: int, config: HeadConfig, key: Key[Array, ""], dtype: ComputeDtype):
        keys = jax.random.split(key, config.num_blocks + 1)
        self.input_norm = FrameNorm(in_dim)
        for index in range(config.num_blocks):
            setattr(self, f"blocks_{index}", HeadBlock(in_dim, config.width, keys[index], dtype))
            in_dim = config.width
        self.output = Linear(in_dim, config.num_tokens, keys[-1], dtype=dtype)
        # Most frames are blank: the initial bias says so, which spares updates.
        blanks = math.log(INITIAL_BLANKS * max(config.num_tokens - 1, 1))
        self.output.bias[...] = self.output.bias[...].at[0].set(blanks)
        self.config = config

    def __call__(
        self,
        x: Float[Array, "batch time dim"],
        valid: Bool[Array, "batch time"],
        statistics: Statistics,
        *,
        training: bool = False,
        dropout_keys: Key[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, "batch time token"], Statistics]:
        """Compute scores (logits), and the running statistics after this batch."""
        found: Statistics = {}
        x, found["input_norm"] = self.input_norm(x, valid, statistics["input_norm"], training)
        for index in range(self.config.num_blocks):
            name = f"blocks_{index}"
            x, found[name] = getattr(self, name)(x, valid, statistics[name], training)
            if index < DROPPED_BLOCKS and dropout_keys is not None:
                x = dropout(x, self.config.dropout, fold_in_all(dropout_keys, index))
        return self.output(x), found


def initial_statistics(in_dim: int, config: HeadConfig) -> Statistics:
    """Make the running statistics before the first batch."""
    blocks = {f"blocks_{index}": fresh_statistics(config.width) for index in range(config.num_blocks)}
    return {"input_norm": fresh_statistics(in_dim), **blocks}


def fresh_statistics(dim: int) -> dict[str, Array]:
    """Make the statistics of one norm before the first batch: mean 0, variance 1."""
    return {"mean": jnp.zeros(dim), "variance": jnp.ones(dim)}
