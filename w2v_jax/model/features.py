"""The feature encoder: waveform -> latent frames (wav2vec 2.0, section 2)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from w2v_jax.config import ConvolutionForm, ModelConfig
from w2v_jax.model import convolutions, log_mel, products
from w2v_jax.model.binding import bind, parameters_of
from w2v_jax.model.encoder_blocks import BlockedEncoder, features_in_blocks
from w2v_jax.model.frame_counts import frame_lengths, valid_frames
from w2v_jax.model.layers import GroupNorm, LayerNorm, Linear, Scoped, Statistics, broadcast_last, gelu
from w2v_jax.model.time_blocks import balanced
from w2v_jax.randomness import dropout


class ConvLayer(Scoped):
    """A strided convolution, its norm if it has one, and GELU."""

    def __init__(self, index: int, config: ModelConfig, key: Key[Array, ""]):
        in_channels = 1 if index == 0 else config.conv_channels[index - 1]
        channels, taps = config.conv_channels[index], config.conv_kernels[index]
        # Kaiming normal with fan-in, as in torch's kaiming_normal_.
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

    def convolve(self, x: Float[Array, "batch time channel"]) -> Float[Array, "batch frame out"]:
        """Apply the convolution and its bias, without norm and GELU."""
        x = convolutions.strided_convolution(x, self.kernel[...], self.stride, self.form, self.dtype)
        return x if self.bias is None else x + broadcast_last(self.bias[...], x)

    def __call__(self, x, valid=None, statistics: Statistics | None = None):
        x = self.convolve(x)
        if isinstance(self.norm, GroupNorm):
            x = self.norm(x, valid, statistics)
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
        if self.config.encoder_block_frames is not None:
            blocked = blocked_encoder(self.config, self.config.num_frames(waveform.shape[1]))
            return features_in_blocks(blocked, parameters_of(self), waveform, num_samples), {}
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

            x = jax.checkpoint(apply)(x) if self.config.rematerialise_cnn else apply(x)
            out[f"conv_layers_{index}"] = x
        return x, out


@functools.cache
def blocked_encoder(config: ModelConfig, frames: int) -> BlockedEncoder:
    """Build the encoder of `frames` frames as functions of its parameters and of a block's samples.

    There is a single block where `config.encoder_block_frames` is None.
    """
    applied = [
        bind(functools.partial(_named_layer, index, config))[1] for index in range(len(config.conv_channels))
    ]

    def first_convolution(parameters: Any, samples: Array) -> Array:
        with jax.named_scope("conv_layers_0"):
            return applied[0](parameters, samples[..., None], method="convolve")

    def layers(parameters: Any, samples: Array, statistics: Statistics | None, inside: Array | None) -> Array:
        x = samples[..., None]
        for index, apply in enumerate(applied):
            first = {"valid": inside, "statistics": statistics} if index == 0 else {}
            x = apply(parameters[f"conv_layers_{index}"], x, **first)
        return x

    blocks = balanced(frames, config.encoder_block_frames)
    return BlockedEncoder(config, blocks, first_convolution, layers)


def _named_layer(index: int, config: ModelConfig, key: Key[Array, ""]) -> ConvLayer:
    layer = ConvLayer(index, config, key)
    layer.scope = f"conv_layers_{index}"
    return layer


def log_mel_frames(
    config: ModelConfig, waveform: Float[Array, "batch time"], num_samples: Int[Array, " batch"]
) -> Float[Array, "batch frame channel"]:
    """Compute log-mel frames, each value normalised over the valid frames of its utterance."""
    with jax.named_scope("log_mel"):
        features = log_mel.log_mel(waveform, config.log_mel_stack, config.log_mel_bands)
        valid = valid_frames(frame_lengths(num_samples, config), features.shape[1])
        return log_mel.normalised(features, valid)


class LogMelFrontEnd(Scoped):
    """Log-mel frames of a waveform: [batch, time] samples -> [batch, frame, channel]; nothing is trained."""

    def __init__(self, config: ModelConfig):
        self.config = config

    def __call__(
        self, waveform: Float[Array, "batch time"], num_samples: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch frame channel"], dict]:
        return log_mel_frames(self.config, waveform, num_samples), {}


def front_end(config: ModelConfig, key: Key[Array, ""]) -> FeatureEncoder | LogMelFrontEnd:
    """Build what turns a waveform into latent frames."""
    return LogMelFrontEnd(config) if config.front_end == "log-mel" else FeatureEncoder(config, key)


class FeatureProjection(Scoped):
    """LayerNorm and a linear map to the context network's width.

    There is no LayerNorm for log-mel frames: it would take away how loud a frame is beside others.
    """

    def __init__(self, config: ModelConfig, key: Key[Array, ""]):
        self.layer_norm = None if config.front_end == "log-mel" else LayerNorm(config.feature_dim)
        self.projection = Linear(
            config.feature_dim, config.hidden_dim, key, dtype=config.compute_dtype, zero_bias=False
        )
        self.dropout_rate = config.input_dropout

    def __call__(self, features, dropout_keys):
        """Return (projected, normed); `normed` is the quantizer's input."""
        normed = self.normed(features)
        return dropout(self.projection(normed), self.dropout_rate, dropout_keys), normed

    def normed(self, features: Float[Array, "batch time channel"]) -> Float[Array, "batch time channel"]:
        """Normalise latent frames as the projection and the quantizer take them."""
        return features if self.layer_norm is None else self.layer_norm(features)
