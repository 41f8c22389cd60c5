"""wav2vec 2.0: the encoder and the pre-training model, made of the other modules; computes no loss."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from w2v_jax.config import ModelConfig
from w2v_jax.model.context import ContextNetwork
from w2v_jax.model.features import FeatureProjection, front_end
from w2v_jax.model.frame_counts import frame_lengths, valid_frames
from w2v_jax.model.layer_gradients import Sink
from w2v_jax.model.layers import Linear, Scoped, scale_gradient, unit_uniform
from w2v_jax.model.quantizer import GumbelQuantizer, Quantized
from w2v_jax.randomness import dropout, fold_in_all

Frozen = Literal["none", "feature-encoder", "encoder"]


class Predictions(NamedTuple):
    """The outputs of a forward pass that the losses need."""

    context: Float[Array, "batch time dim"]
    targets: Float[Array, "batch time dim"]
    quantized: Quantized
    features: Float[Array, "batch time channel"]
    valid: Bool[Array, "batch time"]


class DropoutKeys(NamedTuple):
    """The keys of dropout in a training forward pass; None in place of the record means no dropout."""

    utterance: Key[Array, " batch"]
    step: Key[Array, ""]


class Encoded(NamedTuple):
    """The encoder's outputs for a batch."""

    features: Float[Array, "batch time channel"]
    normed: Float[Array, "batch time channel"]
    projected: Float[Array, "batch time dim"]
    context: Float[Array, "batch time dim"]
    valid: Bool[Array, "batch time"]


class Encoder(Scoped):
    """The part of the model that outlives pre-training: feature encoder and context network."""

    def __init__(self, config: ModelConfig, key: Key[Array, ""]):
        keys = jax.random.split(key, 7)
        self.feature_encoder = front_end(config, keys[0])
        self.feature_projection = FeatureProjection(config, keys[1])
        self.mask_embedding = nnx.Param(unit_uniform(keys[2], (config.hidden_dim,)))
        self.context_network = ContextNetwork(config, keys[3])
        self.config = config

    def __call__(
        self,
        waveform: Float[Array, "batch sample"],
        num_samples: Int[Array, " batch"],
        mask: Bool[Array, "batch time"] | None = None,
        *,
        dropout_keys: DropoutKeys | None = None,
        frozen: Frozen = "none",
    ) -> Encoded:
        """Compute contextual frames of speech, with frames masked where `mask` says so.

        Args:
            waveform: 16 kHz mono, zero beyond `num_samples`.
            num_samples: valid samples per utterance.
            mask: frames replaced by the mask embedding; None replaces none.
            dropout_keys: None for evaluation.
            frozen: the part that gets no gradients: "feature-encoder", "encoder" (all), or "none".
        """
        encoded, _ = self.encode(waveform, num_samples, mask, dropout_keys=dropout_keys, frozen=frozen)
        return encoded

    def encode(
        self,
        waveform: Float[Array, "batch sample"],
        num_samples: Int[Array, " batch"],
        mask: Bool[Array, "batch time"] | None = None,
        *,
        dropout_keys: DropoutKeys | None = None,
        frozen: Frozen = "none",
        features: Float[Array, "batch time channel"] | None = None,
        sink: Sink | None = None,
    ) -> tuple[Encoded, dict[str, Array]]:
        """Encode as `__call__` does, and also return every layer's output under its own name.

        Args:
            waveform, num_samples, mask, dropout_keys, frozen: as in `__call__`.
            features: output of the feature encoder, if it is known already.
            sink: takes up the gradients of the transformer's layers.

        Returns:
            Encoded, and the outputs of the convolutions and of the layers by name.
        """
        config, out = self.config, {}
        if features is None:
            if config.normalise_waveform:
                waveform = normalise_waveform(waveform, num_samples)
            features, out = self.feature_encoder(waveform, num_samples)
        if frozen != "none" or config.front_end == "log-mel":
            features = jax.lax.stop_gradient(features)
        elif config.encoder_gradient_scale != 1.0:
            features = jnp.asarray(scale_gradient(features, config.encoder_gradient_scale))
        valid = valid_frames(frame_lengths(num_samples, config), features.shape[1])
        projected, normed = self.feature_projection(features, self.dropout_site(dropout_keys, 0))
        x = projected
        if mask is not None:
            x = jnp.where(mask[..., None], self.mask_embedding[...].reshape(1, 1, -1), projected)
        step_key = None if dropout_keys is None else dropout_keys.step
        context, context_out = self.context_network(
            x, valid, self.dropout_site(dropout_keys, 1), step_key, sink
        )
        if frozen == "encoder":
            context = jax.lax.stop_gradient(context)
        return Encoded(features, normed, projected, context, valid), out | context_out

    def dropout_site(self, dropout_keys: DropoutKeys | None, index: int) -> Key[Array, " batch"] | None:
        """Derive the keys of a dropout outside the layers; the layers have the first numbers."""
        if dropout_keys is None:
            return None
        return fold_in_all(dropout_keys.utterance, self.config.num_layers + 1 + index)


class Wav2Vec2(Encoder):
    """The pre-training model: encoder, context network, quantizer and both projections."""

    def __init__(self, config: ModelConfig, key: Key[Array, ""]):
        super().__init__(config, key)
        keys = jax.random.split(key, 7)
        dtype = config.compute_dtype
        self.quantizer = GumbelQuantizer(config, keys[4])
        self.project_context = Linear(
            config.hidden_dim, config.projection_dim, keys[5], dtype=dtype, zero_bias=False
        )
        self.project_quantized = Linear(
            config.codevector_dim, config.projection_dim, keys[6], dtype=dtype, zero_bias=False
        )

    def choice_probabilities(
        self,
        features: Float[Array, "batch time channel"],
        *,
        dropout_keys: DropoutKeys | None = None,
    ) -> Float[Array, "batch time group entry"]:
        """Compute the probabilities of the quantizer's entries, as in `Predictions`, from features alone."""
        normed = self.feature_projection.normed(features)
        normed = dropout(normed, self.config.feature_dropout, self.dropout_site(dropout_keys, 2))
        return jax.nn.softmax(self.quantizer.logits(normed), axis=-1)

    def __call__(
        self,
        waveform: Float[Array, "batch sample"],
        num_samples: Int[Array, " batch"],
        mask: Bool[Array, "batch time"],
        *,
        gumbel_noise: Float[Array, "batch time group entry"] | None = None,
        gumbel_temperature: Float[Array, ""] | float = 1.0,
        dropout_keys: DropoutKeys | None = None,
        features: Float[Array, "batch time channel"] | None = None,
        sink: Sink | None = None,
    ) -> tuple[Predictions, dict[str, Array]]:
        """Run the forward pass.

        Args:
            waveform: 16 kHz mono, zero beyond `num_samples`.
            num_samples: valid samples per utterance.
            mask: frames replaced by the mask embedding before the context network.
            gumbel_noise: None for evaluation: codes are then a plain argmax.
            gumbel_temperature: the temperature of the Gumbel softmax.
            dropout_keys: None for evaluation.
            features: output of the feature encoder, if it is known already.
            sink: takes up the gradients of the transformer's layers.

        Returns:
            Predictions, and every intermediate under its own name.
        """
        frozen: Frozen = "feature-encoder" if self.config.frozen_feature_encoder else "none"
        encoded, out = self.encode(
            waveform,
            num_samples,
            mask,
            dropout_keys=dropout_keys,
            frozen=frozen,
            features=features,
            sink=sink,
        )
        quantizer_input = dropout(
            encoded.normed, self.config.feature_dropout, self.dropout_site(dropout_keys, 2)
        )
        quantized = self.quantizer(quantizer_input, gumbel_noise, gumbel_temperature)
        out |= {
            "features": encoded.features,
            "features_normed": encoded.normed,
            "projected": encoded.projected,
            "context": encoded.context,
            "probabilities": quantized.probabilities,
            "codes": quantized.codes,
            "quantized": quantized.vectors,
            "context_projection": self.project_context(encoded.context),
            "quantized_projection": self.project_quantized(quantized.vectors),
        }
        predictions = Predictions(
            context=out["context_projection"],
            targets=out["quantized_projection"],
            quantized=quantized,
            features=encoded.features,
            valid=encoded.valid,
        )
        return predictions, out


def normalise_waveform(
    waveform: Float[Array, "batch sample"], num_samples: Int[Array, " batch"]
) -> Float[Array, "batch sample"]:
    """Scale to zero mean and unit variance over the valid samples (eps 1e-7); zero elsewhere."""
    valid = valid_frames(num_samples, waveform.shape[1])
    share = valid.astype(waveform.dtype)
    count = jnp.maximum(share.sum(1, keepdims=True), 1.0)
    mean = (waveform * share).sum(1, keepdims=True) / count
    variance = (jnp.square(waveform - mean) * share).sum(1, keepdims=True) / count
    return jnp.where(valid, (waveform - mean) * jax.lax.rsqrt(variance + 1e-7), jnp.zeros_like(waveform))
