"""Distractors for the contrastive task (wav2vec 2.0, section 2 and equation 3)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key


def sample_negatives(
    keys: Key[Array, " batch"], mask: Bool[Array, "batch time"], num_negatives: int
) -> Int[Array, "batch time negative"]:
    """Draw frame indices uniformly from the other masked frames of the same utterance.

    A draw is one of n - 1 ranks, and ranks from the positive's own on are shifted by one, so the positive is
    never drawn. Indices are per utterance, never flat over the batch. Callers must ignore unmasked rows, and
    rows of utterances with fewer than two masked frames, as `count_negatives` does.
    """

    def draw(key, masked):
        time = masked.shape[0]
        total = masked.sum()
        rank = jnp.cumsum(masked.astype(jnp.int32)) - 1
        others = jnp.maximum(total - 1, 1)
        uniform = jax.random.uniform(key, (time, num_negatives))
        choice = jnp.minimum((uniform * others.astype(jnp.float32)).astype(jnp.int32), others - 1)
        choice = choice + (choice >= rank[:, None]).astype(jnp.int32)
        positions = jnp.argsort(~masked, stable=True)
        return positions[jnp.minimum(choice, time - 1)]

    return jax.vmap(draw)(keys, mask)


def count_negatives(
    indices: Int[Array, "batch row negative"],
    mask: Bool[Array, "batch time"],
    rows: Int[Array, " row"] | None = None,
) -> Int[Array, "batch row time"]:
    """Count how often frame j is a negative of frame t; zero in rows without a positive or without rivals.

    The counts replace gathered negatives: the sum of exp(similarity) over draws equals the sum over frames
    weighted by their counts, so no [batch, time, negative, dim] array is made. `rows` are the frames for
    which `indices` were drawn; None for all frames, in order.
    """
    time = mask.shape[1]
    usable = mask & (mask.sum(1, keepdims=True) > 1)
    if rows is not None:
        usable = usable[:, rows] & (rows < time)[None]

    def count(rows, use):
        height = rows.shape[0]
        counts = jnp.zeros((height, time), jnp.int32)
        return counts.at[jnp.arange(height)[:, None], rows].add(use[:, None].astype(jnp.int32))

    return jax.vmap(count)(indices, usable)
