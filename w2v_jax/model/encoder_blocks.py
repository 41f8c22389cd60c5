"""The feature encoder in blocks of time: the same features and gradients with the activations of one block.

A block of frames sees its own samples and a few of the next block. Only GroupNorm sees the whole length: its
statistics are gathered first, block by block, and every block is normalised by them. The waveform and these
statistics are kept for the backward pass, which computes every block again and adds up the gradients, those
of the statistics last.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from w2v_jax.config import ModelConfig
from w2v_jax.model.binding import Parameters
from w2v_jax.model.frame_counts import frame_lengths
from w2v_jax.model.layers import Statistics
from w2v_jax.model.time_blocks import TimeBlocks

FIRST = "conv_layers_0"


class BlockedEncoder(NamedTuple):
    """The parts of an encoder, as functions of its parameters.

    Attributes:
        config: gives the shapes.
        blocks: how the frames are cut.
        first_convolution: (the first layer's parameters, samples [batch, time]) -> outputs before the norm.
        layers: (parameters by layer, samples [batch, time], statistics or None, inside) -> frames.
            `inside` is bool [batch, time], False where an output of the first convolution is padding; None
            stands for True everywhere.
    """

    config: ModelConfig
    blocks: TimeBlocks
    first_convolution: Callable[[Parameters, Array], Array]
    layers: Callable[[Parameters, Array, Statistics | None, Array | None], Array]


class _Cut(NamedTuple):
    """A waveform cut into overlapping windows, one for each block."""

    padded: Array
    blocks: int
    step_samples: int
    window_samples: int

    def window(self, block: Array) -> Array:
        return lax.dynamic_slice_in_dim(self.padded, block * self.step_samples, self.window_samples, axis=1)


def _cut(waveform: Array, outputs: int, block_outputs: int, hop: int, field: int) -> _Cut:
    """Cut windows of `block_outputs` outputs; an output sees `field` samples, the next begins `hop` later."""
    blocks = math.ceil(outputs / block_outputs)
    step, window = block_outputs * hop, (block_outputs - 1) * hop + field
    more = (blocks - 1) * step + window - waveform.shape[1]
    padded = jnp.pad(waveform, ((0, 0), (0, max(more, 0))))[:, : (blocks - 1) * step + window]
    return _Cut(padded, blocks, step, window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def features_in_blocks(
    encoder: BlockedEncoder,
    parameters: Parameters,
    waveform: Float[Array, "batch time"],
    num_samples: Int[Array, " batch"],
) -> Float[Array, "batch frame channel"]:
    """Compute the encoder's features, one block of frames at a time; only parameters get gradients.

    Args:
        encoder: the encoder in blocks.
        parameters: parameters of the encoder.
        waveform: 16 kHz mono, zero beyond `num_samples`.
        num_samples: valid samples per utterance.

    Returns:
        Latent frames, equal to those of the plain encoder except for rounding.
    """
    return forward(encoder, parameters, waveform, num_samples)[0]


def forward(
    encoder: BlockedEncoder, parameters: Parameters, waveform: Array, num_samples: Array
) -> tuple[Float[Array, "batch frame channel"], Statistics | None]:
    """Compute the features, and the statistics that `pull_back` needs."""
    statistics = None
    if encoder.config.feature_norm == "group":
        statistics = _statistics(encoder, parameters, waveform, num_samples)
    cut = _windows(encoder, waveform)

    def body(carry: None, block: Array) -> tuple[None, Array]:
        inside = _inside(encoder, num_samples, block)
        return None, encoder.layers(parameters, cut.window(block), statistics, inside)

    _, out = lax.scan(body, None, jnp.arange(cut.blocks))
    return encoder.blocks.join(out), statistics


def pull_back(
    encoder: BlockedEncoder,
    parameters: Parameters,
    waveform: Float[Array, "batch time"],
    num_samples: Int[Array, " batch"],
    statistics: Statistics | None,
    cotangent: Float[Array, "batch frame channel"],
    total: Parameters | None = None,
) -> Parameters:
    """Compute gradients of the encoder's parameters from those of its features, block by block again.

    Returns:
        The gradients, added to `total` where it is given.
    """
    cut = _windows(encoder, waveform)

    def body(total: Any, per_block: tuple[Array, Array]) -> tuple[Any, None]:
        block, change = per_block
        window, inside = cut.window(block), _inside(encoder, num_samples, block)
        _, pull = jax.vjp(lambda p, s: encoder.layers(p, window, s, inside), parameters, statistics)
        return jax.tree.map(jnp.add, total, pull(change)), None

    if total is None:
        total = jax.tree.map(jnp.zeros_like, parameters)
    start = (total, jax.tree.map(jnp.zeros_like, statistics))
    (gradients, changes), _ = lax.scan(body, start, (jnp.arange(cut.blocks), encoder.blocks.cut(cotangent)))
    if statistics is None:
        return gradients
    more = _pull_statistics(encoder, parameters[FIRST], waveform, num_samples, statistics, changes)
    return gradients | {FIRST: jax.tree.map(jnp.add, gradients[FIRST], more)}


def _forward(encoder, parameters, waveform, num_samples):
    features, statistics = forward(encoder, parameters, waveform, num_samples)
    return features, (parameters, waveform, num_samples, statistics)


def _backward(encoder, saved, cotangent):
    parameters, waveform, num_samples, statistics = saved
    return pull_back(encoder, parameters, waveform, num_samples, statistics, cotangent), None, None


features_in_blocks.defvjp(_forward, _backward)


def _windows(encoder: BlockedEncoder, waveform: Array) -> _Cut:
    """Cut the waveform into the windows that the blocks of frames see."""
    config, blocks = encoder.config, encoder.blocks
    hop = math.prod(config.conv_strides)
    return _cut(waveform, blocks.time, blocks.width, hop, config.receptive_field_samples)


def _inside(encoder: BlockedEncoder, num_samples: Array, block: Array) -> Array | None:
    """Mark the outputs of the first convolution in a block that are not padding; None without masking."""
    config = encoder.config
    if not config.masked_group_norm:
        return None
    later = math.prod(config.conv_strides[1:])
    window = (encoder.blocks.width - 1) * math.prod(config.conv_strides) + config.receptive_field_samples
    outputs = (window - config.conv_kernels[0]) // config.conv_strides[0] + 1
    place = block * encoder.blocks.width * later + jnp.arange(outputs)
    return place[None] < frame_lengths(num_samples, config, layers=1)[:, None]


def _first_blocks(
    encoder: BlockedEncoder, waveform: Array, num_samples: Array
) -> tuple[_Cut, Callable[[Array], Array], Array]:
    """Cut windows of the first convolution; weight their outputs (1 or 0), and count those of weight 1."""
    config = encoder.config
    taps, stride = config.conv_kernels[0], config.conv_strides[0]
    total = (waveform.shape[1] - taps) // stride + 1
    width = encoder.blocks.width * math.prod(config.conv_strides[1:])
    cut = _cut(waveform, total, width, stride, taps)
    counted = jnp.full(waveform.shape[:1], total)
    if config.masked_group_norm:
        counted = jnp.minimum(frame_lengths(num_samples, config, layers=1), total)

    def share(block: Array) -> Array:
        place = block * width + jnp.arange(width)
        return (place[None] < counted[:, None]).astype(jnp.float32)[..., None]

    return cut, share, jnp.maximum(counted.astype(jnp.float32), 1.0)[:, None, None]


def _statistics(encoder: BlockedEncoder, parameters, waveform, num_samples) -> Statistics:
    """Compute mean and variance of the first convolution's outputs, block by block (Chan et al. 1979)."""
    cut, share_of, count = _first_blocks(encoder, waveform, num_samples)

    def body(carry: tuple[Array, Array, Array], block: Array) -> tuple[tuple[Array, Array, Array], None]:
        before, mean, squares = carry
        x, share = encoder.first_convolution(parameters[FIRST], cut.window(block)), share_of(block)
        here, own, own_squares = _moments(x, share, encoder.blocks.width)
        after = before + here
        part = here / jnp.maximum(after, 1.0)
        change = own - mean
        mean = mean + change * part
        squares = squares + own_squares + jnp.square(change) * before * part
        return (after, mean, squares), None

    shape = (waveform.shape[0], 1, encoder.config.conv_channels[0])
    start = (jnp.zeros((shape[0], 1, 1)), jnp.zeros(shape), jnp.zeros(shape))
    (_, mean, squares), _ = lax.scan(body, start, jnp.arange(cut.blocks))
    return Statistics(mean, squares / count)


def _moments(x: Array, share: Array, pieces: int) -> tuple[Array, Array, Array]:
    """Compute count, mean and sum of squares about the mean over time, in two stages; `share` is 1 or 0.

    One stage would be less exact: XLA:CPU adds up a long column one by one, and the sum of a whole clip is
    then wrong in its fifth digit.
    """

    def cut(values: Array) -> Array:
        return values.reshape(values.shape[0], pieces, -1, values.shape[2])

    x, share = cut(x), cut(share)
    counts = share.sum(2)
    means = (x * share).sum(2) / jnp.maximum(counts, 1.0)
    squares = (jnp.square(x - means[:, :, None]) * share).sum(2)
    count = counts.sum(1, keepdims=True)
    mean = (means * counts).sum(1, keepdims=True) / jnp.maximum(count, 1.0)
    return count, mean, (squares + jnp.square(means - mean) * counts).sum(1, keepdims=True)


def _pull_statistics(encoder, parameters, waveform, num_samples, statistics, changes) -> Parameters:
    """Compute gradients of the first layer's parameters from those of the statistics."""
    cut, share_of, count = _first_blocks(encoder, waveform, num_samples)

    def body(total: Parameters, block: Array) -> tuple[Parameters, None]:
        window = cut.window(block)
        x, pull = jax.vjp(lambda p: encoder.first_convolution(p, window), parameters)
        change = (changes.mean + 2.0 * (x - statistics.mean) * changes.variance) * share_of(block) / count
        return jax.tree.map(jnp.add, total, pull(change)[0]), None

    zeros = jax.tree.map(jnp.zeros_like, parameters)
    return lax.scan(body, zeros, jnp.arange(cut.blocks))[0]
