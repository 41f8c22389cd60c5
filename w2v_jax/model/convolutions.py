"""The model's convolutions, as `lax.conv` or as matrix products; the form is chosen per backend.

docs/decisions/0003 has the times of both forms. In 16 bits the `lax` form also rounds its result and its
gradients.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from w2v_jax.config import ConvolutionForm
from w2v_jax.model.products import ComputeDtype, einsum
from w2v_jax.platforms import lowered_for

MAX_WINDOW_TAPS = 32
BLOCK_FRAMES = 8  # frames of a block in the product over blocks
LAYOUT = ("NWC", "WIO", "NWC")


def form_for_clients(chunk: int) -> ConvolutionForm:
    """Choose the default form for `chunk` clients that are vmapped, each with its own weights.

    Under vmap `lax.conv` becomes a grouped convolution, and a product becomes a batched one.
    """
    return "product" if chunk > 1 else "lax"


def strided_convolution(
    x: Float[Array, "batch time channel"],
    kernel: Float[Array, "tap channel out"],
    stride: int,
    form: ConvolutionForm,
    dtype: ComputeDtype,
) -> Float[Array, "batch frame out"]:
    """Convolve without padding: `frame = (time - tap) // stride + 1`.

    The product form cuts the waveform into blocks of `stride` samples, and each run of up to `stride` taps
    becomes one matrix product. Vmapped over kernels, that is a batched product.
    """
    taps, channels, _ = kernel.shape
    if form == "lax":
        return _lax_convolution(x, kernel, stride, 1, (0, 0), dtype)
    frames = (x.shape[1] - taps) // stride + 1
    runs = -(-taps // stride)
    needed = (frames + runs - 1) * stride
    if x.shape[1] < needed:
        x = jnp.pad(x, ((0, 0), (0, needed - x.shape[1]), (0, 0)))
    blocks = x[:, :needed].reshape(x.shape[0], frames + runs - 1, stride * channels)
    rows = kernel.reshape(taps * channels, -1)
    if lowered_for() == "gpu":
        # Use one product over whole windows: a GPU lays its operands out in memory anyway.
        widths = [min(stride, taps - run * stride) * channels for run in range(runs)]
        windows = [blocks[:, run : run + frames, :width] for run, width in enumerate(widths)]
        return einsum("btd,de->bte", jnp.concatenate(windows, axis=-1), rows, dtype)
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
    """Convolve in groups with stride 1 and `tap // 2` padding; even taps drop one output.

    The product form lays windows out in memory. With many taps (base has 128) on a GPU it lays out blocks of
    frames instead, and the kernel at every place in a block. On a GPU bf16 takes that path in either form:
    cuDNN's grouped convolution of base runs at 6 TFLOP/s on an H100 (docs/decisions/0012).
    """
    taps, group_channels, channels = kernel.shape
    batch, time, _ = x.shape
    before, after = taps // 2, taps - 1 - taps // 2
    many = taps > MAX_WINDOW_TAPS
    if many and lowered_for() == "gpu" and (form == "product" or dtype == "bfloat16"):
        return _block_convolution(x, kernel, groups, dtype)
    if form == "lax" or many:
        return _lax_convolution(x, kernel, 1, groups, (before, after), dtype)
    padded = jnp.pad(x, ((0, 0), (before, after), (0, 0)))
    windows = jnp.stack([padded[:, tap : tap + time] for tap in range(taps)], axis=2)
    windows = windows.reshape(batch, time, taps, groups, group_channels)
    weights = kernel.reshape(taps, group_channels, groups, channels // groups)
    out = einsum("btkgi,kigo->btgo", windows, weights, dtype)
    return out.reshape(batch, time, channels)


def _block_convolution(x, kernel, groups, dtype):
    """Compute the positional convolution as one product a group, over blocks of frames and their context.

    A block of B frames sees B + taps - 1 frames. The kernel is laid out once for each frame of a block and is
    zero elsewhere, so the product has (B + taps - 1) / taps times the operations: 1.05 for 128 taps.
    """
    taps, group_channels, channels = kernel.shape
    batch, time, _ = x.shape
    before, block = taps // 2, BLOCK_FRAMES
    count = -(-time // block)  # number of blocks
    reach = -(-(block + taps - 1) // block)  # number of blocks that one block sees
    padded = jnp.pad(x, ((0, 0), (before, (count + reach - 1) * block - time - before), (0, 0)))
    pieces = padded.reshape(batch, count + reach - 1, block, groups, group_channels)
    seen = jnp.stack([pieces[:, place : place + count] for place in range(reach)], axis=2)
    seen = seen.reshape(batch, count, reach * block, groups, group_channels)
    rest = reach * block - taps
    placed = jnp.stack(
        [jnp.pad(kernel, ((place, rest - place), (0, 0), (0, 0))) for place in range(block)], axis=2
    )
    placed = placed.reshape(reach * block, group_channels, block, groups, channels // groups)
    out = einsum("bnkgi,kisgo->bnsgo", seen, placed, dtype)
    return out.reshape(batch, count * block, channels)[:, :time]


def _lax_convolution(x, kernel, stride, groups, padding, dtype):
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    if lowered_for() == "cpu":
        out = jnp.asarray(_canonical_convolution(x, kernel, stride, groups, padding))
    else:
        out = _convolution(x, kernel, stride, groups, padding)
    return out.astype(jnp.float32)


def _convolution(x, kernel, stride, groups, padding, dilation=(1, 1)):
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride,),
        padding=[padding],
        lhs_dilation=dilation[:1],
        rhs_dilation=dilation[1:],
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST if x.dtype == jnp.float32 else None,
    )


# XLA:CPU (jaxlib 0.10.2) brings the derivatives of lax.conv into its fast layout at the top of a program but
# not inside loops, where a step then takes about three times as long. The derivatives below are in that
# layout from the start, so they are fast everywhere.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _canonical_convolution(x, kernel, stride, groups, padding):
    return _convolution(x, kernel, stride, groups, padding)


def _canonical_forward(x, kernel, stride, groups, padding):
    return _convolution(x, kernel, stride, groups, padding), (x, kernel)


def _canonical_backward(stride, groups, padding, saved, cotangent):
    x, kernel = saved
    taps, group_inputs, outputs = kernel.shape
    batch, time, inputs = x.shape
    frames, (before, after) = cotangent.shape[1], padding
    unread = time + before + after - ((frames - 1) * stride + taps)

    if stride > 1 and groups == 1 and padding == (0, 0):
        x_gradient = _spread(cotangent, kernel, stride, time)
    else:
        flipped = kernel[::-1].reshape(taps, group_inputs, groups, outputs // groups)
        flipped = flipped.transpose(0, 3, 2, 1).reshape(taps, outputs // groups, inputs)
        around = (taps - 1 - before, taps - 1 - after + unread)
        x_gradient = _convolution(cotangent, flipped, 1, groups, around, (stride, 1))

    # The channels take the place of the batch, and the batch is summed over.
    rows = x.reshape(batch, time, groups, group_inputs).transpose(3, 1, 2, 0)
    rows = rows.reshape(group_inputs, time, groups * batch)
    kernel_gradient = _convolution(
        rows, cotangent.transpose(1, 0, 2), 1, groups, (before, after - unread), (1, stride)
    )
    return x_gradient, kernel_gradient.transpose(1, 0, 2)


def _spread(cotangent, kernel, stride, time):
    """Compute the gradient of a strided convolution's input by a product for each run of `stride` taps.

    A convolution of the cotangent with zeros between its frames takes as long on XLA:CPU, and needs scratch
    memory of frames x taps x channels that no memory plan shows.
    """
    taps, channels, outputs = kernel.shape
    batch, frames, _ = cotangent.shape
    runs = -(-taps // stride)
    rows = kernel.reshape(taps * channels, outputs)
    blocks = None
    for run in range(runs):
        weights = rows[run * stride * channels : (run + 1) * stride * channels]
        part = jnp.einsum(
            "bfo,co->bfc",
            cotangent,
            weights,
            precision=lax.Precision.HIGHEST if cotangent.dtype == jnp.float32 else None,
            preferred_element_type=jnp.float32,
        )
        part = jnp.pad(part, ((0, 0), (run, runs - 1 - run), (0, stride * channels - weights.shape[0])))
        blocks = part if blocks is None else blocks + part
    assert blocks is not None
    reached = (frames + runs - 1) * stride
    x_gradient = blocks.reshape(batch, reached, channels)[:, :time]
    return jnp.pad(x_gradient, ((0, 0), (0, max(time - reached, 0)), (0, 0))).astype(cotangent.dtype)


_canonical_convolution.defvjp(_canonical_forward, _canonical_backward)
