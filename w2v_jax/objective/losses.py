"""The losses and metrics of wav2vec 2.0: arrays in, scalars or per-frame arrays out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Contrast(NamedTuple):
    """Per-frame results of the contrastive task; meaningful only at masked frames."""

    loss: Float[Array, "batch row"]
    correct: Bool[Array, "batch row"]


def unit(x: Float[Array, "batch time dim"]) -> Float[Array, "batch time dim"]:
    """Scale vectors to length one, in fp32; zero stays zero."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-16))


def cosine_similarity(
    context: Float[Array, "batch time dim"], targets: Float[Array, "batch frame dim"]
) -> Float[Array, "batch time frame"]:
    """Compute the cosine of every context vector to every target of the same utterance, in fp32."""
    return jnp.einsum("btd,bfd->btf", unit(context), unit(targets), precision=jax.lax.Precision.HIGHEST)


def contrastive(
    similarity: Float[Array, "batch row time"],
    codes: Int[Array, "batch time group"],
    counts: Int[Array, "batch row time"],
    temperature: float,
    rows: Int[Array, " row"] | None = None,
) -> Contrast:
    """Compute the contrastive loss of every row, `-log softmax` of its own target (equation 3).

    Args:
        similarity: cosine of context t (rows) and quantized target j (columns).
        codes: chosen entries of all frames; a negative with the positive's own codes gets -inf.
        counts: how often frame j was drawn as a negative of frame t.
        temperature: divides the similarities.
        rows: frames of the rows; None for all frames, in order.

    Returns:
        Loss in nats, and whether the positive beats every live negative; a tie is wrong.
    """
    logits = similarity / temperature
    live = live_negatives(codes, counts, rows)
    weighted = logits + jnp.log(jnp.maximum(counts, 1).astype(jnp.float32))
    negative = jnp.where(live, weighted, -jnp.inf)
    time = jnp.arange(logits.shape[2])
    own = (time if rows is None else rows)[None, :, None] == time[None, None]
    positive = jnp.where(own, logits, jnp.zeros_like(logits)).sum(-1)
    total = jax.nn.logsumexp(jnp.where(own, logits, negative), axis=-1)
    best_rival = jnp.where(live, logits, -jnp.inf).max(-1)
    return Contrast(total - positive, positive > best_rival)


def gathered_contrastive(
    context: Float[Array, "batch time dim"],
    targets: Float[Array, "batch time dim"],
    codes: Int[Array, "batch time group"],
    negatives: Int[Array, "batch time negative"],
    usable: Bool[Array, "batch time"],
    temperature: float,
) -> Contrast:
    """Compute `contrastive` from gathered vectors of the negatives, [batch, time, negative, dim].

    Other programs compute it this way.

    Args:
        context, targets: vectors of all frames.
        codes: chosen entries of all frames.
        negatives: frames drawn for each frame.
        usable: frames whose negatives count.
        temperature: divides the similarities.
    """
    gathered = jax.vmap(lambda rows, index: rows[index])(unit(targets), negatives)
    own = unit(context)
    positive = (own * unit(targets)).sum(-1) / temperature
    rivals = jnp.einsum("btd,btnd->btn", own, gathered, precision=jax.lax.Precision.HIGHEST) / temperature
    drawn = jax.vmap(lambda rows, index: rows[index])(codes, negatives)
    live = usable[..., None] & ~(drawn == codes[:, :, None]).all(-1)
    rivals = jnp.where(live, rivals, -jnp.inf)
    total = jax.nn.logsumexp(jnp.concatenate([positive[..., None], rivals], -1), axis=-1)
    return Contrast(total - positive, positive > rivals.max(-1))


def live_negatives(
    codes: Int[Array, "batch time group"],
    counts: Int[Array, "batch row time"],
    rows: Int[Array, " row"] | None = None,
) -> Bool[Array, "batch row time"]:
    """Mark pairs (t, j) where j was drawn for t and has other codes than t; `rows` is as in `contrastive`."""
    own = codes if rows is None else codes[:, rows]
    same = (own[:, :, None, :] == codes[:, None, :, :]).all(-1)
    return (counts > 0) & ~same


def chance_accuracy(
    codes: Int[Array, "batch time group"], counts: Int[Array, "batch time time"]
) -> Float[Array, "batch time"]:
    """Compute the accuracy of guessing per frame, 1 / (1 + distinct live negative codes).

    Drawn negatives repeat and share codes, so 1 / (1 + number of draws) would be too low.
    """
    live = live_negatives(codes, counts).astype(jnp.float32)
    same = (codes[:, :, None, :] == codes[:, None, :, :]).all(-1)
    first_with_code = jnp.argmax(same, axis=-1)
    representative = jax.nn.one_hot(first_with_code, codes.shape[1], dtype=jnp.float32)
    distinct = (jnp.einsum("btj,bjr->btr", live, representative) > 0).sum(-1)
    return 1.0 / (1.0 + distinct.astype(jnp.float32))


def perplexity(average: Float[Array, "group entry"]) -> Float[Array, ""]:
    """Compute exp(entropy) of each group's average distribution, summed over groups."""
    entropy = -(average * jnp.log(average + 1e-7)).sum(-1)
    return jnp.exp(entropy).sum()


def diversity(average: Float[Array, "group entry"]) -> Float[Array, ""]:
    """Compute (codes - perplexity) / codes of averaged choice probabilities (equation 4, fairseq's form)."""
    return (average.size - perplexity(average)) / average.size


def masked_mean(
    values: Float[Array, "batch time *rest"], mask: Bool[Array, "batch time"]
) -> Float[Array, "*rest"]:
    """Average over True frames; zero where there are none."""
    share = mask.astype(values.dtype).reshape(mask.shape + (1,) * (values.ndim - 2))
    return (values * share).sum((0, 1)) / jnp.maximum(mask.sum().astype(values.dtype), 1.0)


def utterance_moments(
    correct: Bool[Array, "batch time"] | Float[Array, "batch time"], mask: Bool[Array, "batch time"]
) -> Float[Array, "5"]:
    """Sum c, n, c c, c n and n n over utterances with c hits in n masked frames; a hit may be a share.

    The sums add up over batches; `ratio_standard_error` reads them.
    """
    n = mask.sum(1).astype(jnp.float32)
    c = (correct.astype(jnp.float32) * mask.astype(jnp.float32)).sum(1)
    return jnp.stack([c.sum(), n.sum(), (c * c).sum(), (c * n).sum(), (n * n).sum()])


def ratio_standard_error(moments: np.ndarray) -> float:
    """Compute the standard error of the accuracy over independent utterances (ratio estimator)."""
    hits, frames, hits_squared, product, frames_squared = (float(m) for m in moments)
    if frames == 0:
        return float("nan")
    ratio = hits / frames
    residual = hits_squared - 2 * ratio * product + ratio**2 * frames_squared
    return max(residual, 0.0) ** 0.5 / frames
