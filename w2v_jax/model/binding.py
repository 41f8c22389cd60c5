"""Turn NNX modules into pure functions of nested dicts of arrays."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Key

Parameters = dict[str, Any]


def bind(make: Callable[[Key[Array, ""]], nnx.Module]) -> tuple[Callable, Callable]:
    """Build (init, apply) of a module whose only state is its parameters, a nested dict of arrays.

    `init(key)` makes the parameters; `apply(parameters, *args, method="__call__", **kwargs)` calls a method
    of the module.
    """
    template = nnx.eval_shape(lambda: make(jax.random.key(0)))
    definition, abstract = nnx.split(template)

    def init(key: Key[Array, ""]) -> Parameters:
        return nnx.to_pure_dict(nnx.state(make(key)))

    def apply(parameters: Parameters, *args, method: str = "__call__", **kwargs):
        state = jax.tree.map(lambda leaf: leaf, abstract)
        nnx.replace_by_pure_dict(state, parameters)
        return getattr(nnx.merge(definition, state), method)(*args, **kwargs)

    return init, apply


def parameters_of(module: nnx.Module) -> Parameters:
    """Return the parameters of a module, as `apply` takes them."""
    return nnx.to_pure_dict(nnx.state(module))
