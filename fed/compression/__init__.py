"""Fewer bytes between clients and server: codecs by name, and `compressed.compressed`, which applies them."""

import jax.numpy as jnp

from fed.compression.codecs import Codec, as_dtype
from fed.compression.quantisation import quantised
from fed.compression.sparsity import random_mask, top_k
from fed.protocols import FederationError


def codec(text: str, *, unbiased: bool = False) -> Codec:
    """Make the codec of a name: fp32, bf16, q8, q4, q2, topk:SHARE or mask:SHARE.

    Args:
        text: the name, such as "q2" or "topk:0.01".
        unbiased: scale the values of a random mask to keep their mean, for use without error feedback.

    Raises:
        FederationError: there is no such codec.
    """
    kind, _, share = text.partition(":")
    if text == "fp32":
        return as_dtype(text, jnp.dtype(jnp.float32))
    if text == "bf16":
        return as_dtype(text, jnp.dtype(jnp.bfloat16))
    if text in ("q8", "q4", "q2"):
        return quantised(int(text[1:]))
    try:
        if kind == "topk":
            return top_k(float(share))
        if kind == "mask":
            return random_mask(float(share), unbiased)
    except (ValueError, FederationError):
        pass
    raise FederationError(
        f"there is no codec {text!r}: use fp32, bf16, q8, q4, q2, topk:SHARE or mask:SHARE, with a share "
        "above 0 and at most 1, such as topk:0.01"
    )
