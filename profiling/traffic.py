"""Count the bytes that a function's operations read and write, by name scope, for a roofline.

The program alone does not tell what a compiler fuses. So there are two estimates. `products` counts operands
and results of products and Fourier transforms alone, as if all else were fused with them. `unfused` counts
operands and results of every operation that computes. Neither is a strict bound: products may be fused with
one another, and neither counts moving data (transposes, padding, gathers).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from profiling.flops import Direction, scope_of, walk, without_dead_code
from profiling.primitives import ELEMENTWISE, FREE, REDUCTIONS, TRANSCENDENTAL, WINDOWS

_PRODUCTS = ("dot_general", "conv_general_dilated", "fft")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes read and written."""

    products: int = 0
    unfused: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.products + other.products, self.unfused + other.unfused)

    def times(self, count: int) -> "Traffic":
        """Multiply the traffic by `count`."""
        return Traffic(count * self.products, count * self.unfused)

    @property
    def size(self) -> int:
        """Return the number by which branches of a conditional are compared."""
        return self.unfused


class TrafficReport(NamedTuple):
    """Bytes read and written by (scope, direction), and the number of operations without a price by name."""

    rows: dict[tuple[str, Direction], Traffic]
    unpriced: dict[str, int]


def traffic(function: Callable, *arguments: Any) -> TrafficReport:
    """Count the bytes that one call of a function reads and writes; nothing is computed.

    Args:
        function: any function that jax can trace.
        arguments: trees of arrays or jax.ShapeDtypeStruct.
    """
    program = jax.make_jaxpr(function)(*arguments).jaxpr
    unpriced: dict[str, int] = {}
    rows: dict[tuple[str, Direction], Traffic] = {}
    for path, moved in walk(without_dead_code(program), _price, unpriced):
        if moved != Traffic():
            key = scope_of(path)
            rows[key] = rows.get(key, Traffic()) + moved
    return TrafficReport(rows, unpriced)


def _price(equation: Any) -> Traffic | None:
    name = equation.primitive.name
    if name in FREE:
        return Traffic()
    if name not in (*_PRODUCTS, *ELEMENTWISE, *TRANSCENDENTAL, *REDUCTIONS, *WINDOWS, "reduce"):
        return None
    moved = sum(
        math.prod(variable.aval.shape) * variable.aval.dtype.itemsize
        for variable in (*equation.invars, *equation.outvars)
    )
    return Traffic(products=moved if name in _PRODUCTS else 0, unfused=moved)
