"""The number of frames of an utterance, and the mask of its valid frames."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from w2v_jax.config import ModelConfig
from w2v_jax.model import log_mel


def frame_lengths(
    num_samples: Int[Array, " batch"], config: ModelConfig, layers: int | None = None
) -> Int[Array, " batch"]:
    """Count valid frames after the first convolutions; 0 where an utterance is too short.

    Args:
        num_samples: int32 [batch], at 16 kHz.
        config: gives kernels and strides.
        layers: number of convolutions; all by default.
    """
    if config.front_end == "log-mel":
        return log_mel.frame_lengths(num_samples, config.log_mel_stack)
    length = num_samples
    for kernel, stride in list(zip(config.conv_kernels, config.conv_strides, strict=True))[:layers]:
        length = jnp.maximum((length - kernel) // stride + 1, 0)
    return length


def valid_frames(num_frames: Int[Array, " batch"], total: int) -> Bool[Array, "batch total"]:
    """Mark frames whose index is below the utterance's number of frames."""
    return jnp.arange(total)[None, :] < num_frames[:, None]
