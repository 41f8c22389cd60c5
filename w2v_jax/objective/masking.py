"""Span masks over latent frames (wav2vec 2.0, section 3.1), and a control of predictions at masked frames."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


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


def shuffle_masked(
    context: Float[Array, "batch time dim"],
    mask: Bool[Array, "batch time"],
    keys: Key[Array, " batch"],
) -> Float[Array, "batch time dim"]:
    """Permute the context vectors of the masked frames among themselves, per utterance.

    This is the control of the accuracy: the accuracy that remains comes from what all frames of
    an utterance share, not from the frame's own context.
    """

    def shuffle(x, masked, key):
        scores = jax.random.uniform(key, masked.shape)
        source = jnp.argsort(jnp.where(masked, scores, jnp.inf), stable=True)
        target = jnp.argsort(~masked, stable=True)
        return x.at[target].set(x[source])

    return jax.vmap(shuffle)(context, mask, keys)
