"""Span masks over latent frames (wav2vec 2.0, section 3.1)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key


def span_mask(
    keys: Key[Array, " batch"],
    num_frames: Int[Array, " batch"],
    total_frames: int,
    *,
    probability: float,
    span: int,
    min_spans: int,
) -> Bool[Array, "batch time"]:
    """Mask about `probability` x frames / span spans per utterance; spans may overlap.

    Args:
        keys: one key per utterance.
        num_frames: valid frames; spans never reach into padding.
        total_frames: padded length; it does not change the draws.
        probability: share of frames that would be masked if no spans overlapped.
        span: frames per span.
        min_spans: fewest spans, where the utterance has room for them.

    Returns:
        True at masked frames. Utterances shorter than a span have none.
    """

    def draw(key, frames):
        count_key, start_key = jax.random.split(key)
        wanted = probability * frames.astype(jnp.float32) / span + jax.random.uniform(count_key)
        room = frames // span
        count = jnp.clip(wanted.astype(jnp.int32), jnp.minimum(min_spans, room), room)
        scores = jax.random.uniform(start_key, (total_frames,))
        scores = jnp.where(jnp.arange(total_frames) <= frames - span, scores, jnp.inf)
        rank = jnp.argsort(jnp.argsort(scores))
        starts = jnp.cumsum((rank < count).astype(jnp.int32))
        before = jnp.concatenate([jnp.zeros(span, jnp.int32), starts])[:total_frames]
        return starts > before

    return jax.vmap(draw)(keys, num_frames)
