"""The Gumbel product quantizer (wav2vec 2.0, section 2 and equation 1)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from w2v_jax.config import ModelConfig
from w2v_jax.model.layers import Linear, Scoped, normal, unit_uniform


class Quantized(NamedTuple):
    """The quantizer's output for every frame."""

    vectors: Float[Array, "batch time dim"]
    codes: Int[Array, "batch time group"]
    probabilities: Float[Array, "batch time group entry"]


class GumbelQuantizer(Scoped):
    """Choose one entry per group: one-hot forward, gradient of the soft choice backward."""

    def __init__(self, config: ModelConfig, key: Key[Array, ""]):
        linear_key, codebook_key = jax.random.split(key)
        groups, entries = config.codebook_groups, config.codebook_entries
        self.weight_proj = Linear(
            config.feature_dim,
            config.num_codes,
            linear_key,
            dtype=config.compute_dtype,
            initializer=normal(1.0),
        )
        shape = (groups, entries, config.codevector_dim // groups)
        self.codevectors = nnx.Param(unit_uniform(codebook_key, shape))

    def logits(self, features: Float[Array, "batch time channel"]) -> Float[Array, "batch time group entry"]:
        """Compute the logits of every entry, without noise."""
        groups, entries, _ = self.codevectors.shape
        return self.weight_proj(features).reshape(*features.shape[:2], groups, entries)

    def __call__(
        self,
        features: Float[Array, "batch time channel"],
        noise: Float[Array, "batch time group entry"] | None,
        temperature: Float[Array, ""] | float,
    ) -> Quantized:
        """Quantize frames.

        Args:
            features: unmasked, layer-normed features.
            noise: Gumbel noise, or None for a plain argmax without gradient to the choice.
            temperature: the temperature of the Gumbel softmax.

        Returns:
            Vectors, the chosen entry per group, and probabilities without noise or temperature.
        """
        groups, entries, group_dim = self.codevectors.shape
        batch, time, _ = features.shape
        logits = self.logits(features)
        probabilities = jax.nn.softmax(logits, axis=-1)
        perturbed = logits if noise is None else logits + noise
        codes = jnp.argmax(perturbed, axis=-1)
        choice = jax.nn.one_hot(codes, entries, dtype=logits.dtype)
        if noise is not None:
            soft = jax.nn.softmax(perturbed / temperature, axis=-1)
            choice = choice + soft - jax.lax.stop_gradient(soft)
        # The codebook stays fp32 whatever the compute dtype is.
        vectors = jnp.einsum(
            "btgv,gvd->btgd", choice, self.codevectors[...], precision=jax.lax.Precision.HIGHEST
        )
        return Quantized(vectors.reshape(batch, time, groups * group_dim), codes, probabilities)


def gumbel_noise(
    keys: Key[Array, " batch"], time: int, groups: int, entries: int
) -> Float[Array, "batch time group entry"]:
    """Draw standard Gumbel noise per utterance, in fp32, finite by construction."""
    return jax.vmap(lambda k: jax.random.gumbel(k, (time, groups, entries)))(keys)


def gumbel_temperature(config: ModelConfig, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """Compute max(start x decay^step, end) for the global update `step`."""
    decayed = config.gumbel_temperature_start * jnp.power(
        jnp.float32(config.gumbel_temperature_decay), jnp.asarray(step, jnp.float32)
    )
    return jnp.maximum(decayed, jnp.float32(config.gumbel_temperature_end))
