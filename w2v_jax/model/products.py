"""Matrix products in mixed precision.

Under `bfloat16` or `float16` operands are rounded to 16 bits and accumulated in fp32, forward and backward;
activations stay fp32 outside the products. On GPUs `bfloat16` also rounds results, which halves the bytes
that are written and read; gradients of second operands, such as weights, are not rounded. `float16` needs a
scaled loss (experiments/costs/step/training_step.py).
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from w2v_jax.platforms import lowered_for

ComputeDtype = Literal["float32", "bfloat16", "float16"]


def einsum(spec: str, a: Array, b: Array, dtype: ComputeDtype) -> Array:
    """Compute an einsum of two operands, accumulated in fp32; in bf16 a GPU rounds its result to bf16.

    Args:
        spec: like "btd,de->bte". Every index of an operand must be in the other one or the result.
        a, b: float32 operands.
        dtype: "float32", or "bfloat16" or "float16" to round the operands, also in the backward pass.
    """
    if dtype == "float32":
        # At the default precision GPUs would round to TF32 and TPUs to bf16.
        return jnp.einsum(spec, a, b, precision=lax.Precision.HIGHEST)
    return _mixed_einsum(spec, dtype, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _mixed_einsum(spec, dtype, a, b):
    return _rounded_einsum(spec, dtype, a, b, rounds_result=True)


def _rounded_einsum(spec, dtype, a, b, rounds_result=False):
    a, b = a.astype(dtype), b.astype(dtype)
    if lowered_for() == "cpu" and _has_batch_axis(spec):
        # XLA:CPU (jaxlib 0.10.2) lacks some batched 16-bit products with fp32 results inside loops.
        return jnp.einsum(spec, a.astype(jnp.float32), b.astype(jnp.float32))
    if rounds_result and dtype == "bfloat16" and lowered_for() == "gpu":
        return jnp.einsum(spec, a, b, preferred_element_type=jnp.bfloat16).astype(jnp.float32)
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _has_batch_axis(spec: str) -> bool:
    """Tell whether an index stands in both operands and in the result."""
    inputs, output = spec.split("->")
    left, right = inputs.split(",")
    return bool(set(left) & set(right) & set(output))


def _mixed_einsum_forward(spec, dtype, a, b):
    # Kept for the backward pass: rounded activations, and the second operand. A weight has no index in common
    # with both the activations and the result; it is kept as it is, since its fp32 form is in memory anyway.
    rounded = a.astype(dtype)
    kept = b.astype(dtype) if _has_batch_axis(spec) else b
    return _rounded_einsum(spec, dtype, rounded, b, rounds_result=True), (rounded, kept)


def _mixed_einsum_backward(spec, dtype, saved, cotangent):
    a, b = saved
    inputs, output = spec.split("->")
    left, right = inputs.split(",")
    return (
        _rounded_einsum(f"{output},{right}->{left}", dtype, cotangent, b, rounds_result=True),
        _rounded_einsum(f"{left},{output}->{right}", dtype, a, cotangent),
    )


_mixed_einsum.defvjp(_mixed_einsum_forward, _mixed_einsum_backward)
