"""The toy model in plain jax."""

import jax
import jax.numpy as jnp

from experiments.bench.rounds.peers import toy


def loss(parameters, batch, form: str):
    """Compute the mean squared error of a batch."""
    x = batch["waveform"][..., None]
    for index, (_, stride) in enumerate(toy.CONVOLUTIONS):
        x = jax.nn.gelu(convolution(x, parameters[f"conv{index}"], stride, form), approximate=False)
    for layer in range(toy.LAYERS):
        x = x + attention(normalised(x), parameters, layer)
        hidden = jax.nn.gelu(normalised(x) @ parameters[f"up{layer}"], approximate=False)
        x = x + hidden @ parameters[f"down{layer}"]
    return jnp.square(normalised(x) @ parameters["head"] - batch["target"]).mean()


def convolution(x, kernel, stride: int, form: str):
    """Convolve without padding: by lax.conv (`own`: with own derivatives) or by products over blocks."""
    taps, channels, out = kernel.shape
    if form == "lax":
        return jax.lax.conv_general_dilated(
            x, kernel, (stride,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
        )
    if form == "own":
        from w2v_jax.model.convolutions import strided_convolution

        return strided_convolution(x, kernel, stride, "lax", "float32")
    count = (x.shape[1] - taps) // stride + 1
    runs = -(-taps // stride)
    needed = (count + runs - 1) * stride
    x = jnp.pad(x, ((0, 0), (0, max(0, needed - x.shape[1])), (0, 0)))[:, :needed]
    blocks = x.reshape(x.shape[0], count + runs - 1, stride * channels)
    rows = jnp.pad(
        kernel.reshape(taps * channels, out), ((0, runs * stride * channels - taps * channels), (0, 0))
    )
    width = stride * channels
    return sum(blocks[:, r : r + count] @ rows[r * width : (r + 1) * width] for r in range(runs))


def normalised(x):
    """Apply layer norm without scale."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)


def attention(x, parameters, layer: int):
    """Apply self-attention over all frames."""
    shape = (*x.shape[:2], toy.HEADS, toy.DIM // toy.HEADS)
    query, key, value = (
        (x @ parameters[f"{name}{layer}"]).reshape(shape) for name in ("query", "key", "value")
    )
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / jnp.sqrt(toy.DIM // toy.HEADS)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, -1), value)
    return mixed.reshape(x.shape) @ parameters[f"out{layer}"]
