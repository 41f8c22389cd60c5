"""Bytes that a function's operations read and write, per name scope: the other axis of a roofline.

Nobody knows from the program alone what a compiler fuses. So two estimates are given: `products`, operands
and results of products alone, as if all else were fused with them; and `unfused`, operands and results of
every operation that computes. Neither is a strict bound: products may be fused with one another, and moving
data (transposes, padding, gathers) is in neither.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from profiling.flops import (
    ELEMENTWISE,
    FREE,
    REDUCTIONS,
    TRANSCENDENTAL,
    WINDOWS,
    Direction,
    scope_of,
    walk,
    without_dead_code,
)

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


class TrafficReport(NamedTuple):
    """Bytes moved by (scope, direction), and what could not be priced, by name."""

    rows: dict[tuple[str, Direction], Traffic]
    unpriced: dict[str, int]


def traffic(function: Callable, *arguments: Any) -> TrafficReport:
    """Bytes moved by one call.

    Args:
        function: any function that jax can trace.
        arguments: arrays or jax.ShapeDtypeStruct trees; nothing is computed.
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
