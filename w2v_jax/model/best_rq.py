"""BEST-RQ: the encoder with heads that name each frame's codes (Chiu et al. 2022, arXiv 2202.01855)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from w2v_jax.config import ModelConfig
from w2v_jax.model.layer_gradients import Sink
from w2v_jax.model.layers import Linear, normal
from w2v_jax.model.wav2vec2 import DropoutKeys, Encoded, Encoder


class BestRQ(Encoder):
    """The pre-training model: the encoder, and one linear head a codebook.

    Codebooks and projections are no parameters: every client draws the same ones from the configuration's
    seed, so that an average of clients cannot mix codes.
    """

    def __init__(self, config: ModelConfig, key: Key[Array, ""]):
        super().__init__(config, key)
        codes = config.target_codebooks * config.target_entries
        self.prediction = Linear(
            config.hidden_dim,
            codes,
            jax.random.split(key, 7)[4],
            dtype=config.compute_dtype,
            initializer=normal(0.02),
        )

    def __call__(
        self,
        waveform: Float[Array, "batch sample"],
        num_samples: Int[Array, " batch"],
        mask: Bool[Array, "batch time"],
        *,
        dropout_keys: DropoutKeys | None = None,
        sink: Sink | None = None,
    ) -> tuple[Encoded, dict[str, Array]]:
        """Run the encoder with frames masked; `logits` makes predictions of its context.

        Args:
            waveform: 16 kHz mono, zero beyond `num_samples`.
            num_samples: valid samples per utterance.
            mask: frames replaced by the mask embedding before the context network.
            dropout_keys: None for evaluation.
            sink: takes up the gradients of the transformer's layers.
        """
        return self.encode(waveform, num_samples, mask, dropout_keys=dropout_keys, sink=sink)

    def logits(self, context: Float[Array, "batch time dim"]) -> Float[Array, "batch time book entry"]:
        """Compute the scores of every codebook's entries."""
        config = self.config
        scores = self.prediction(context)
        return scores.reshape(*context.shape[:2], config.target_codebooks, config.target_entries)


@functools.cache
def codebooks(config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Draw the fixed projections and codebooks of a configuration.

    Returns:
        Projections, float32 [book, feature, dim], uniform in Glorot's bounds; and codebooks, float32
        [book, entry, dim], normal and scaled to length one.
    """
    draws = np.random.Generator(np.random.PCG64(config.target_seed))
    bound = (6.0 / (config.feature_dim + config.target_dim)) ** 0.5
    books, dim = config.target_codebooks, config.target_dim
    projections = draws.uniform(-bound, bound, (books, config.feature_dim, dim))
    entries = draws.normal(size=(books, config.target_entries, dim))
    entries /= np.linalg.norm(entries, axis=-1, keepdims=True)
    return projections.astype(np.float32), entries.astype(np.float32)


def target_codes(
    config: ModelConfig, features: Float[Array, "batch time channel"]
) -> Int[Array, "batch time book"]:
    """Find the entry of every codebook that is nearest to the projected frame, both scaled to length one.

    The entry with the largest inner product is the nearest one, whatever the length of the projected frame.

    Args:
        config: gives the codebooks.
        features: log-mel frames, each value normalised over its utterance.
    """
    projections, entries = (jnp.asarray(part) for part in codebooks(config))
    highest = jax.lax.Precision.HIGHEST
    with jax.named_scope("quantizer"):
        projected = jnp.einsum("btc,gcd->btgd", features.astype(jnp.float32), projections, precision=highest)
        nearness = jnp.einsum("btgd,gvd->btgv", projected, entries, precision=highest)
        return jnp.argmax(nearness, axis=-1).astype(jnp.int32)
