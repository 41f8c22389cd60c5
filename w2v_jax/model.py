"""wav2vec 2.0 for pre-training: wires the parts, returns named intermediates, computes no loss."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from w2v_jax.config import ModelConfig
from w2v_jax.context import ContextNetwork
from w2v_jax.features import FeatureEncoder, FeatureProjection, frame_lengths, valid_frames
from w2v_jax.layers import Linear, Scoped, scale_gradient, unit_uniform
from w2v_jax.quantizer import GumbelQuantizer, Quantized
from w2v_jax.randomness import dropout, fold_in_all


class Predictions(NamedTuple):
    """What the losses need of a forward pass."""

    context: Float[Array, "batch time dim"]
    targets: Float[Array, "batch time dim"]
    quantized: Quantized
    features: Float[Array, "batch time channel"]
    valid: Bool[Array, "batch time"]


class DropoutKeys(NamedTuple):
    """Keys of a training forward pass; None in place of the record means no dropout at all."""

    utterance: Key[Array, " batch"]
    step: Key[Array, ""]


class Wav2Vec2(Scoped):
    """The pre-training model: encoder, context network, quantizer and both projections."""

    def __init__(self, config: ModelConfig, key: Key[Array, ""]):
        keys = jax.random.split(key, 7)
        dtype = config.compute_dtype
        self.feature_encoder = FeatureEncoder(config, keys[0])
        self.feature_projection = FeatureProjection(config, keys[1])
        self.mask_embedding = nnx.Param(unit_uniform(keys[2], (config.hidden_dim,)))
        self.context_network = ContextNetwork(config, keys[3])
        self.quantizer = GumbelQuantizer(config, keys[4])
        self.project_context = Linear(
            config.hidden_dim, config.projection_dim, keys[5], dtype=dtype, zero_bias=False
        )
        self.project_quantized = Linear(
            config.codevector_dim, config.projection_dim, keys[6], dtype=dtype, zero_bias=False
        )
        self.config = config

    def __call__(
        self,
        waveform: Float[Array, "batch sample"],
        num_samples: Int[Array, " batch"],
        mask: Bool[Array, "batch time"],
        *,
        gumbel_noise: Float[Array, "batch time group entry"] | None = None,
        gumbel_temperature: Float[Array, ""] | float = 1.0,
        dropout_keys: DropoutKeys | None = None,
    ) -> tuple[Predictions, dict[str, Array]]:
        """Forward pass.

        Args:
            waveform: 16 kHz mono, zero beyond `num_samples`.
            num_samples: valid samples per utterance.
            mask: frames replaced by the mask embedding before the context network.
            gumbel_noise: None for evaluation: codes are then a plain argmax.
            gumbel_temperature: of the Gumbel softmax.
            dropout_keys: None for evaluation.

        Returns:
            Predictions, and every intermediate under its own name.
        """
        config = self.config
        if config.normalise_waveform:
            waveform = normalise_waveform(waveform, num_samples)
        features, out = self.feature_encoder(waveform, num_samples)
        if config.encoder_gradient_scale != 1.0:
            features = jnp.asarray(scale_gradient(features, config.encoder_gradient_scale))
        valid = valid_frames(frame_lengths(num_samples, config), features.shape[1])

        def site(index):
            return None if dropout_keys is None else fold_in_all(dropout_keys.utterance, index)

        base = config.num_layers + 1
        projected, normed = self.feature_projection(features, site(base))
        embedding = self.mask_embedding[...].reshape(1, 1, -1)
        masked = jnp.where(mask[..., None], embedding, projected)
        step_key = None if dropout_keys is None else dropout_keys.step
        context, context_out = self.context_network(masked, valid, site(base + 1), step_key)
        quantizer_input = dropout(normed, config.feature_dropout, site(base + 2))
        quantized = self.quantizer(quantizer_input, gumbel_noise, gumbel_temperature)
        out |= context_out | {
            "features": features,
            "features_normed": normed,
            "projected": projected,
            "context": context,
            "probabilities": quantized.probabilities,
            "codes": quantized.codes,
            "quantized": quantized.vectors,
            "context_projection": self.project_context(context),
            "quantized_projection": self.project_quantized(quantized.vectors),
        }
        predictions = Predictions(
            context=out["context_projection"],
            targets=out["quantized_projection"],
            quantized=quantized,
            features=features,
            valid=valid,
        )
        return predictions, out


def normalise_waveform(
    waveform: Float[Array, "batch sample"], num_samples: Int[Array, " batch"]
) -> Float[Array, "batch sample"]:
    """Zero mean and unit variance over the valid samples (eps 1e-7), zero elsewhere."""
    valid = valid_frames(num_samples, waveform.shape[1])
    share = valid.astype(waveform.dtype)
    count = jnp.maximum(share.sum(1, keepdims=True), 1.0)
    mean = (waveform * share).sum(1, keepdims=True) / count
    variance = (jnp.square(waveform - mean) * share).sum(1, keepdims=True) / count
    return jnp.where(valid, (waveform - mean) * jax.lax.rsqrt(variance + 1e-7), jnp.zeros_like(waveform))
