"""Building blocks: modules that hold only parameters and label their operations."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from w2v_jax.model import products

EPSILON = 1e-5

Initializer = Callable[[Array, tuple[int, ...]], Array]


class Scoped(nnx.Module):
    """A module whose operations carry its attribute path as their name scope.

    The profiler attributes work by these scopes; NNX itself puts no path into operation names.
    """

    scope: str = ""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        call = cls.__dict__.get("__call__")
        if call is None:
            return

        @functools.wraps(call)
        def scoped_call(self, *args, **kwargs):
            with jax.named_scope(self.scope or cls.__name__):
                return call(self, *args, **kwargs)

        cls.__call__ = scoped_call

    def __setattr__(self, name, value):
        if isinstance(value, Scoped) and name != "scope":
            value.scope = name
        super().__setattr__(name, value)


def broadcast_last(vector: Float[Array, " dim"], like: Array) -> Array:
    """Give `vector` leading axes of size one, so that it broadcasts against `like`."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


def normal(std: float) -> Initializer:
    """Build the initializer N(0, std^2)."""
    return lambda key, shape: std * jax.random.normal(key, shape)


def symmetric_uniform(bound: float) -> Initializer:
    """Build the initializer U(-bound, bound)."""
    return lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def unit_uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Draw from U(0, 1), as torch's `uniform_` does (jax.nn.initializers.uniform() is U(0, 0.01))."""
    return jax.random.uniform(key, shape)


class Linear(Scoped):
    """y = x W + b over the last axis."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        key: Key[Array, ""],
        *,
        dtype: products.ComputeDtype,
        initializer: Initializer | None = None,
        zero_bias: bool = True,
    ):
        kernel_key, bias_key = jax.random.split(key)
        initializer = initializer or symmetric_uniform(in_dim**-0.5)
        self.kernel = nnx.Param(initializer(kernel_key, (in_dim, out_dim)))
        bias = jnp.zeros(out_dim) if zero_bias else symmetric_uniform(in_dim**-0.5)(bias_key, (out_dim,))
        self.bias = nnx.Param(bias)
        self.dtype: products.ComputeDtype = dtype

    def __call__(self, x: Float[Array, "batch time in_dim"]) -> Float[Array, "batch time out_dim"]:
        y = products.einsum("btd,de->bte", x, self.kernel[...], self.dtype)
        return y + broadcast_last(self.bias[...], y)


class LayerNorm(Scoped):
    """Layer normalisation over the last axis, eps 1e-5, in fp32."""

    def __init__(self, dim: int):
        self.scale = nnx.Param(jnp.ones(dim))
        self.bias = nnx.Param(jnp.zeros(dim))

    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        mean = x.mean(-1, keepdims=True)
        variance = jnp.square(x - mean).mean(-1, keepdims=True)
        y = (x - mean) * jax.lax.rsqrt(variance + EPSILON)
        return y * broadcast_last(self.scale[...], y) + broadcast_last(self.bias[...], y)


class Statistics(NamedTuple):
    """Mean and variance of each channel over time."""

    mean: Float[Array, "batch 1 channel"]
    variance: Float[Array, "batch 1 channel"]


class GroupNorm(Scoped):
    """Normalisation of each channel over time (as many groups as channels), eps 1e-5.

    Without `valid`, padding takes part, as in transformers; with it, statistics run over valid
    frames alone and padded frames come out as zero.
    """

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(
        self,
        x: Float[Array, "batch time channel"],
        valid: Bool[Array, "batch time"] | None = None,
        statistics: Statistics | None = None,
    ) -> Float[Array, "batch time channel"]:
        """Normalise `x`, by `statistics` where they are given and else by its own."""
        mean, variance = statistics or self.statistics(x, valid)
        y = (x - mean) * jax.lax.rsqrt(variance + EPSILON)
        y = y * broadcast_last(self.scale[...], y) + broadcast_last(self.bias[...], y)
        return y if valid is None else jnp.where(valid[..., None], y, jnp.zeros_like(y))

    @staticmethod
    def statistics(x: Array, valid: Array | None) -> Statistics:
        """Compute mean and variance of `x` over time, or over its valid frames."""
        if valid is None:
            mean = x.mean(1, keepdims=True)
            return Statistics(mean, jnp.square(x - mean).mean(1, keepdims=True))
        share = valid.astype(x.dtype)[..., None]
        count = jnp.maximum(share.sum(1, keepdims=True), 1.0)
        mean = (x * share).sum(1, keepdims=True) / count
        return Statistics(mean, (jnp.square(x - mean) * share).sum(1, keepdims=True) / count)


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the exact GELU by the error function (the default of jax.nn.gelu is the tanh approximation).

    The form is torch's, x / 2 (1 + erf(x / sqrt 2)). JAX's exact form uses erfc, which takes XLA:CPU twice as
    long.
    """
    return x * (0.5 * (1.0 + jax.lax.erf(x * 0.5**0.5)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def scale_gradient(x: Array, scale: float) -> Any:
    """Return `x`; its gradient is multiplied by `scale`."""
    return x


scale_gradient.defvjp(lambda x, scale: (x, None), lambda scale, _, cotangent: (cotangent * scale,))
