"""Bytes that a function's operations read and write, per name scope: the other axis of a roofline.

Nobody knows from the program alone what a compiler fuses. So two bounds are given: `products`, operands and
results of products alone, as if all else were fused with them; and `unfused`, operands and results of every
operation that computes. The truth lies between.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from profiling.flops import ELEMENTWISE, FREE, REDUCTIONS, TRANSCENDENTAL, Direction, scope_of, walk

_PRODUCTS = ("dot_general", "conv_general_dilated")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes moved."""

    products: int = 0
    unfused: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.products + other.products, self.unfused + other.unfused)

    def times(self, count: int) -> "Traffic":
        """The traffic of doing it `count` times."""
        return Traffic(count * self.products, count * self.unfused)

    @property
    def size(self) -> int:
        """By what the dearest branch of a conditional is told."""
        return self.unfused


def traffic(function: Callable, *arguments: Any) -> dict[tuple[str, Direction], Traffic]:
    """Bytes moved by one call, by (scope, direction).

    Args:
        function: any function that jax can trace.
        arguments: arrays or jax.ShapeDtypeStruct trees; nothing is computed.
    """
    rows: dict[tuple[str, Direction], Traffic] = {}
    for path, moved in walk(jax.make_jaxpr(function)(*arguments).jaxpr, _price, {}):
        if moved != Traffic():
            key = scope_of(path)
            rows[key] = rows.get(key, Traffic()) + moved
    return rows


def _price(equation: Any) -> Traffic | None:
    name = equation.primitive.name
    if name in FREE:
        return Traffic()
    if name not in (*_PRODUCTS, *ELEMENTWISE, *TRANSCENDENTAL, *REDUCTIONS):
        return None
    moved = sum(
        math.prod(variable.aval.shape) * variable.aval.dtype.itemsize
        for variable in (*equation.invars, *equation.outvars)
    )
    return Traffic(products=moved if name in _PRODUCTS else 0, unfused=moved)
