"""Frames of a clip as one vector: means over segments of equal length."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SEGMENTS = 6


def segment_means(
    frames: Float[Array, "batch time feature"], num_frames: Int[Array, " batch"], segments: int = SEGMENTS
) -> Float[Array, "batch pooled"]:
    """Average the valid frames of every clip in segments of equal length, side by side.

    A frame that lies in two segments counts in each by the share of it that lies there. So segments are
    equally long whatever the number of frames, and a clip with fewer frames than segments has no empty one.

    Args:
        frames: of clips.
        num_frames: valid frames of each clip; they come first.
        segments: how many.

    Returns:
        float32 [batch, segments x feature], the features of a clip's first segment first; zero for a clip
        without frames.
    """
    time = jnp.arange(frames.shape[1], dtype=jnp.float32)[None, None, :]
    length = num_frames.astype(jnp.float32)[:, None, None] / segments
    start = jnp.arange(segments, dtype=jnp.float32)[None, :, None] * length
    inside = jnp.minimum(time + 1.0, start + length) - jnp.maximum(time, start)
    weights = jnp.maximum(inside, 0.0) / jnp.maximum(length, 1e-6)
    means = jnp.einsum("bst,btf->bsf", weights, frames.astype(jnp.float32))
    return means.reshape(frames.shape[0], -1)
