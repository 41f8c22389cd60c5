"""A stack of layers whose gradients are added, layer by layer, to arrays that exist already.

A gradient of the whole stack is as large as its parameters. It need never exist where gradients of several
micro-batches are added up, or applied at once: the backward pass goes from the last layer to the first and
adds each layer's gradient in place. For jax.grad these arrays are one more input of the stack, and their
"gradient" is the arrays themselves plus everything that was added.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from w2v_jax.model.binding import Parameters

# (parameters of a layer, its input, values of its own, values that all layers share) -> its output
Layer = Callable[[Parameters, Array, Any, Any], Array]


class Sink(NamedTuple):
    """Arrays that take up the gradients of the layers.

    Attributes:
        values: arrays like the stacked parameters, leaves [layer, ...]. Gradients with respect to them are
            `values + scale x gradients of the layers`.
        scale: 1 to add gradients up; minus the learning rate to descend at once.
    """

    values: Parameters
    scale: Float[Array, ""]


class Descent(Sink):
    """A sink whose values are the stacked parameters themselves, which descend in place."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def layers_into_sink(
    layer: Layer,
    x: Float[Array, "batch time dim"],
    sink: Sink,
    parameters: Parameters,
    own: Any,
    shared: Any,
) -> Float[Array, "batch time dim"]:
    """Apply all layers, one after another; the backward pass computes every layer again.

    Args:
        layer: one layer, without a closure over arrays.
        x: input of the first layer.
        sink: takes up the gradients of the parameters.
        parameters: leaves [layer, ...]; ignored where the sink is a Descent.
        own: values of each layer, leaves [layer, ...].
        shared: values that all layers share.
    """
    return _forward(layer, x, sink, parameters, own, shared)[0]


def _forward(layer, x, sink, parameters, own, shared):
    def body(x, per_layer):
        held, own = per_layer
        return layer(held, x, own, shared), x

    out, inputs = lax.scan(body, x, (_held(sink, parameters), own))
    return out, (inputs, sink, parameters, own, shared)


def _backward(layer, saved, cotangent):
    inputs, sink, parameters, own, shared = saved
    count = inputs.shape[0]

    def body(carry, per_layer):
        change, values = carry
        index, x, own = per_layer
        held = _at(_held(sink._replace(values=values), parameters), index)
        _, pull = jax.vjp(lambda p, x: layer(p, x, own, shared), held, x)
        gradients, change = pull(change)
        values = jax.tree.map(
            lambda v, g: lax.dynamic_update_index_in_dim(
                v, lax.dynamic_index_in_dim(v, index, keepdims=False) + sink.scale * g, index, 0
            ),
            values,
            gradients,
        )
        return (change, values), None

    # Go backwards: the gradient of a layer's input is the cotangent of the layer before it.
    (change, values), _ = lax.scan(
        body, (cotangent, sink.values), (jnp.arange(count), inputs, own), reverse=True
    )
    return change, sink._replace(values=values, scale=jnp.zeros_like(sink.scale)), None, None, None


def _held(sink: Sink, parameters: Parameters) -> Parameters:
    return sink.values if isinstance(sink, Descent) else parameters


def _at(tree: Parameters, index: Array) -> Parameters:
    return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False), tree)


layers_into_sink.defvjp(_forward, _backward)
