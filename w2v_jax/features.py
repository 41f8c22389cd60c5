"""Feature encoder: waveform -> latent frames (wav2vec 2.0, section 2)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from w2v_jax import convolutions, products
from w2v_jax.config import ConvolutionForm, ModelConfig
from w2v_jax.layers import GroupNorm, LayerNorm, Linear, Scoped, broadcast_last, gelu
from w2v_jax.randomness import dropout


def frame_lengths(num_samples: Int[Array, " batch"], config: ModelConfig, layers: int | None = None):
    """Valid frames after the first `layers` convolutions (all by default); 0 where too short."""
    length = num_samples
    for kernel, stride in list(zip(config.conv_kernels, config.conv_strides, strict=True))[:layers]:
        length = jnp.maximum((length - kernel) // stride + 1, 0)
    return length


def valid_frames(num_frames: Int[Array, " batch"], total: int):
    """Boolean [batch, total]: frame index below the utterance's number of frames."""
    return jnp.arange(total)[None, :] < num_frames[:, None]


class ConvLayer(Scoped):
    """One strided convolution, its norm if it has one, and GELU."""

    def __init__(self, index: int, config: ModelConfig, key: Key[Array, ""]):
        in_channels = 1 if index == 0 else config.conv_channels[index - 1]
        channels, taps = config.conv_channels[index], config.conv_kernels[index]
        # Kaiming normal with fan-in, as torch's kaiming_normal_.
        std = (2.0 / (in_channels * taps)) ** 0.5
        self.kernel = nnx.Param(std * jax.random.normal(key, (taps, in_channels, channels)))
        self.bias = nnx.Param(jnp.zeros(channels)) if config.conv_bias else None
        norm = None
        if config.feature_norm == "layer":
            norm = LayerNorm(channels)
        elif index == 0:
            norm = GroupNorm(channels)
        self.norm = norm
        self.stride = config.conv_strides[index]
        self.dtype: products.ComputeDtype = config.compute_dtype
        self.form: ConvolutionForm = config.convolution_form

    def __call__(self, x, valid=None):
        x = convolutions.strided_convolution(x, self.kernel[...], self.stride, self.form, self.dtype)
        if self.bias is not None:
            x = x + broadcast_last(self.bias[...], x)
        if isinstance(self.norm, GroupNorm):
            x = self.norm(x, valid)
        elif self.norm is not None:
            x = self.norm(x)
        return gelu(x)


class FeatureEncoder(Scoped):
    """Seven strided convolutions: [batch, time] samples -> [batch, frame, channel]."""

    def __init__(self, config: ModelConfig, key: Key[Array, ""]):
        keys = jax.random.split(key, len(config.conv_channels))
        for index in range(len(config.conv_channels)):
            setattr(self, f"conv_layers_{index}", ConvLayer(index, config, keys[index]))
        self.config = config

    def __call__(
        self, waveform: Float[Array, "batch time"], num_samples: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch frame channel"], dict]:
        out = {}
        x = waveform[..., None]
        for index in range(len(self.config.conv_channels)):
            layer = getattr(self, f"conv_layers_{index}")
            valid = None
            if index == 0 and self.config.masked_group_norm:
                frames = (x.shape[1] - self.config.conv_kernels[0]) // self.config.conv_strides[0] + 1
                valid = valid_frames(frame_lengths(num_samples, self.config, 1), frames)

            def apply(x, layer=layer, valid=valid):
                return layer(x, valid)

            x = jax.checkpoint(apply)(x) if self.config.rematerialise else apply(x)
            out[f"conv_layers_{index}"] = x
        return x, out


class FeatureProjection(Scoped):
    """LayerNorm and a linear map to the context network's width."""

    def __init__(self, config: ModelConfig, key: Key[Array, ""]):
        self.layer_norm = LayerNorm(config.feature_dim)
        self.projection = Linear(
            config.feature_dim, config.hidden_dim, key, dtype=config.compute_dtype, zero_bias=False
        )
        self.dropout_rate = config.input_dropout

    def __call__(self, features, dropout_keys):
        """Returns (projected, normed): the second is the quantizer's input."""
        normed = self.layer_norm(features)
        return dropout(self.projection(normed), self.dropout_rate, dropout_keys), normed
