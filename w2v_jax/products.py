"""Matrix products in mixed precision.

Under `bfloat16` operands are rounded to bf16 and accumulated in fp32, forward and backward;
activations stay fp32 outside the products.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from w2v_jax.platforms import lowered_for

ComputeDtype = Literal["float32", "bfloat16"]


def einsum(spec: str, a: Array, b: Array, dtype: ComputeDtype) -> Array:
    """A two-operand einsum with fp32 accumulation and result.

    Args:
        spec: like "btd,de->bte". Every index of an operand must be in the other one or the result.
        a, b: float32 operands.
        dtype: "float32", or "bfloat16" to round the operands, also in the backward pass.
    """
    if dtype == "float32":
        # Else GPUs would round to TF32 and TPUs to bf16.
        return jnp.einsum(spec, a, b, precision=lax.Precision.HIGHEST)
    return _mixed_einsum(spec, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mixed_einsum(spec, a, b):
    return _rounded_einsum(spec, a, b)


def _rounded_einsum(spec, a, b):
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    if lowered_for() == "cpu" and _has_batch_axis(spec):
        # XLA:CPU (jaxlib 0.10.2) lacks some batched bf16 x bf16 = f32 products inside loops.
        return jnp.einsum(spec, a.astype(jnp.float32), b.astype(jnp.float32))
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _has_batch_axis(spec: str) -> bool:
    """Whether an index stands in both operands and in the result."""
    inputs, output = spec.split("->")
    left, right = inputs.split(",")
    return bool(set(left) & set(right) & set(output))


def _mixed_einsum_forward(spec, a, b):
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return _rounded_einsum(spec, a, b), (a, b)


def _mixed_einsum_backward(spec, saved, cotangent):
    a, b = saved
    inputs, output = spec.split("->")
    left, right = inputs.split(",")
    return (
        _rounded_einsum(f"{output},{right}->{left}", cotangent, b),
        _rounded_einsum(f"{left},{output}->{right}", a, cotangent),
    )


_mixed_einsum.defvjp(_mixed_einsum_forward, _mixed_einsum_backward)
