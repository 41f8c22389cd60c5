"""Matrix products in mixed precision, and convolutions written as matrix products.

Under `bfloat16` operands are rounded to bf16 and accumulated in fp32, forward and backward;
activations stay fp32 outside the products. The `lax` form of a convolution also rounds its result
and its gradients to bf16.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from w2v_jax.config import ConvolutionForm

MAX_PRODUCT_TAPS = 32

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
    if jax.default_backend() == "cpu" and _has_batch_axis(spec):
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


def strided_convolution(
    x: Float[Array, "batch time channel"],
    kernel: Float[Array, "tap channel out"],
    stride: int,
    form: ConvolutionForm,
    dtype: ComputeDtype,
) -> Float[Array, "batch frame out"]:
    """Convolution without padding, `frame = (time - tap) // stride + 1`.

    In the product form the waveform is cut into blocks of `stride` samples, and each run of up to
    `stride` taps becomes one matrix product. Vmapped over clients with weights of their own, that
    is a batched product, where `lax.conv` becomes a grouped convolution, slow on CPU.
    """
    taps, channels, _ = kernel.shape
    if form == "lax":
        return _lax_convolution(x, kernel, stride, 1, "VALID", dtype)
    frames = (x.shape[1] - taps) // stride + 1
    runs = -(-taps // stride)
    needed = (frames + runs - 1) * stride
    if x.shape[1] < needed:
        x = jnp.pad(x, ((0, 0), (0, needed - x.shape[1]), (0, 0)))
    blocks = x[:, :needed].reshape(x.shape[0], frames + runs - 1, stride * channels)
    rows = kernel.reshape(taps * channels, -1)
    total = None
    for run in range(runs):
        start = run * stride * channels
        weights = rows[start : start + stride * channels]
        part = blocks[:, run : run + frames, : weights.shape[0]]
        product = einsum("btd,de->bte", part, weights, dtype)
        total = product if total is None else total + product
    assert total is not None
    return total


def positional_convolution(
    x: Float[Array, "batch time channel"],
    kernel: Float[Array, "tap group_channel channel"],
    groups: int,
    form: ConvolutionForm,
    dtype: ComputeDtype,
) -> Float[Array, "batch time channel"]:
    """Grouped convolution of stride 1 with `tap // 2` padding; one output is dropped for even taps."""
    taps, group_channels, channels = kernel.shape
    batch, time, _ = x.shape
    before, after = taps // 2, taps - 1 - taps // 2
    if form == "lax":
        return _lax_convolution(x, kernel, 1, groups, [(before, after)], dtype)
    padded = jnp.pad(x, ((0, 0), (before, after), (0, 0)))
    windows = jnp.stack([padded[:, tap : tap + time] for tap in range(taps)], axis=2)
    windows = windows.reshape(batch, time, taps, groups, group_channels)
    weights = kernel.reshape(taps, group_channels, groups, channels // groups)
    out = einsum("btkgi,kigo->btgo", windows, weights, dtype)
    return out.reshape(batch, time, channels)


def _lax_convolution(x, kernel, stride, groups, padding, dtype):
    out = lax.conv_general_dilated(
        x.astype(dtype),
        kernel.astype(dtype),
        window_strides=(stride,),
        padding=padding,
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST if dtype == "float32" else None,
    )
    return out.astype(jnp.float32)


def resolve_form(form: ConvolutionForm, taps: int = 1) -> ConvolutionForm:
    """`auto` is the product form on CPU and `lax` elsewhere (docs/decisions/0003).

    Also `lax` for kernels of many taps (base's positional one has 128), whose windows the product
    form would lay out side by side in memory.
    """
    if form != "auto":
        return form
    return "product" if jax.default_backend() == "cpu" and taps <= MAX_PRODUCT_TAPS else "lax"
