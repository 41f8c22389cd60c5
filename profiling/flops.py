"""Count the floating-point operations of any function by name scope, by a walk over its jaxpr.

XLA's own cost analysis counts the body of a loop once, leaves out operations that it optimises away, and
charges elementwise work by its own formulas. This module counts the program as it is written, except for
operations whose results are not used.

Conventions:

- A multiply-add is two operations. Products (dot_general, conv_general_dilated), elementwise work (one
  operation for each output element; for reductions, each input element) and transcendental functions (one for
  each element) are counted separately.
- A tap of a convolution counts where it meets an element of the input. Taps on padding count in
  `padding_products`: XLA skips them, textbooks count them. Taps on the holes of a dilated input do not count.
  So each derivative of a convolution costs as much as the convolution.
- The body of a scan counts as often as it runs. A conditional counts as its most expensive branch. Loops
  without a fixed number of iterations and unknown primitives are listed in `unpriced`.
- A Fourier transform of n numbers counts as 5 n log2 n elementwise operations, and as half of that for real
  numbers, whatever algorithm computes it (the convention of FFTW's benchmarks).
- Moving data (reshape, gather, sort, type conversion, ...) and drawing random bits are free.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import numpy as np
from jax.interpreters import partial_eval

from profiling.primitives import CALLS, ELEMENTWISE, FREE, REDUCTIONS, TRANSCENDENTAL, WINDOWS

Direction = Literal["forward", "backward"]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Numbers of operations, exact."""

    products: int = 0
    padding_products: int = 0
    elementwise: int = 0
    transcendental: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            *(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True))
        )

    def times(self, count: int) -> "Cost":
        """Multiply the cost by `count`."""
        return Cost(*(count * value for value in dataclasses.astuple(self)))

    @property
    def flops(self) -> int:
        """Return products, elementwise and transcendental operations together, without padding."""
        return self.products + self.elementwise + self.transcendental

    @property
    def size(self) -> int:
        """Return the number by which branches of a conditional are compared."""
        return self.flops


@dataclasses.dataclass(frozen=True)
class Report:
    """Cost of a function.

    Attributes:
        rows: (scope, direction) -> cost. A scope is a path of name scopes, "" outside of all of them.
        unpriced: primitive or loop without a price -> number of its occurrences.
    """

    rows: dict[tuple[str, Direction], Cost]
    unpriced: dict[str, int]

    @property
    def total(self) -> Cost:
        """Return the sum of all rows."""
        return sum(self.rows.values(), Cost())

    def by_module(self, depth: int = 1) -> dict[tuple[str, Direction], Cost]:
        """Sum the rows of scopes with the same first `depth` names."""
        found: dict[tuple[str, Direction], Cost] = {}
        for (scope, direction), cost in self.rows.items():
            key = ("/".join(scope.split("/")[:depth]), direction)
            found[key] = found.get(key, Cost()) + cost
        return found


def count(function: Callable, *arguments: Any, **options: Any) -> Report:
    """Price one call of a function; nothing is computed.

    Args:
        function: any function that jax can trace, including derivatives and vmapped functions.
        arguments: trees of arrays or jax.ShapeDtypeStruct.
        options: keyword arguments of the function.

    Returns:
        Operations by name scope and direction.
    """
    program = jax.make_jaxpr(function)(*arguments, **options)
    return count_jaxpr(program.jaxpr)


def count_jaxpr(jaxpr: Any) -> Report:
    """Price a traced program; see `count`."""
    rows: dict[tuple[str, Direction], Cost] = {}
    unpriced: dict[str, int] = {}
    for path, cost in walk(without_dead_code(jaxpr), _price, unpriced):
        if cost != Cost():
            key = scope_of(path)
            rows[key] = rows.get(key, Cost()) + cost
    return Report(rows, unpriced)


def without_dead_code(jaxpr: Any) -> Any:
    """Remove operations whose results are not used, since no compiler runs them.

    Derivatives contain some, such as the gradient of an input that needs none.
    """
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]


def walk(
    jaxpr: Any, price: Callable[[Any], Any], unpriced: dict[str, int], path: str = "", times: int = 1
) -> Iterator[tuple[str, Any]]:
    """Price every operation of a program, as often as it runs.

    Args:
        jaxpr: a traced program.
        price: equation -> a cost with `times(count)` and `size`, or None for an unknown primitive.
        unpriced: receives the number of occurrences of each primitive without a price.
        path: name stack that surrounds the program.
        times: number of times that the program runs.

    Yields:
        (name stack, cost).
    """
    for equation in jaxpr.eqns:
        here = "/".join(filter(None, (path, str(equation.source_info.name_stack))))
        name, parameters = equation.primitive.name, equation.params
        if name == "scan":
            body = parameters["jaxpr"].jaxpr
            yield from walk(body, price, unpriced, here, times * parameters["length"])
        elif name == "cond":
            branches = [
                list(walk(branch.jaxpr, price, unpriced, here, times)) for branch in parameters["branches"]
            ]
            yield from max(branches, key=lambda rows: sum(cost.size for _, cost in rows))
        elif name == "while":
            unpriced["while loop"] = unpriced.get("while loop", 0) + times
        elif name == "shard_map":
            # Inside, arrays are cut along the manual axes and whole along the others (jax renamed these).
            manual = parameters.get("newly_manual_axes") or parameters["manual_axes"]
            cuts = math.prod(parameters["mesh"].shape[axis] for axis in manual)
            yield from walk(_open(parameters["jaxpr"]), price, unpriced, here, times * cuts)
        elif (inner := called(equation)) is not None:
            yield from walk(inner, price, unpriced, here, times)
        elif (cost := price(equation)) is not None:
            yield here, cost.times(times)
        else:
            unpriced[name] = unpriced.get(name, 0) + times


def called(equation: Any) -> Any:
    """Return the program that an equation calls once (jit, remat, custom derivatives), or None."""
    parameters = equation.params
    if equation.primitive.name not in CALLS:
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in parameters and parameters[key] is not None:
            return _open(parameters[key])
    return None


def _open(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)


def _price(equation: Any) -> Cost | None:
    name = equation.primitive.name
    if name == "dot_general":
        return Cost(products=_dot_products(equation))
    if name == "conv_general_dilated":
        met, missed = _convolution_products(equation)
        return Cost(products=met, padding_products=missed)
    if name == "fft":
        return Cost(elementwise=_fourier_operations(equation))
    if name in ELEMENTWISE:
        return Cost(elementwise=_size(equation.outvars))
    if name in TRANSCENDENTAL:
        return Cost(transcendental=_size(equation.outvars))
    if name == "reduce":
        # A reduction by a function of two numbers calls it once for each input element.
        rows = list(walk(_open(equation.params["jaxpr"]), _price, unpriced := {}))
        each = sum((cost for _, cost in rows), Cost())
        return None if unpriced else each.times(_size(equation.invars[:1]))
    if name in WINDOWS:
        return Cost(elementwise=_size(equation.outvars) * math.prod(equation.params["window_dimensions"]))
    if name in REDUCTIONS:
        operand = equation.invars[-1 if name.startswith("scatter") else 0]
        return Cost(elementwise=_size([operand]))
    return Cost() if name in FREE else None


def _size(variables: Any) -> int:
    return sum(math.prod(variable.aval.shape) for variable in variables)


def _fourier_operations(equation: Any) -> int:
    lengths = equation.params["fft_lengths"]
    shape = equation.invars[0].aval.shape
    points = math.prod(lengths)
    each = 5 * points * math.log2(points)
    real = equation.params["fft_type"] in (jax.lax.FftType.RFFT, jax.lax.FftType.IRFFT)
    return round(math.prod(shape[: len(shape) - len(lengths)]) * each / (2 if real else 1))


def _dot_products(equation: Any) -> int:
    (left_contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * _size(equation.outvars) * math.prod(shape[axis] for axis in left_contracted)


def _convolution_products(equation: Any) -> tuple[int, int]:
    """Return (products with the input, products with padding)."""
    parameters = equation.params
    numbers = parameters["dimension_numbers"]
    left, right = (variable.aval.shape for variable in equation.invars)
    out = equation.outvars[0].aval.shape
    met = missed_too = 1
    for axis, (before, _) in enumerate(parameters["padding"]):
        length, taps = left[numbers.lhs_spec[2 + axis]], right[numbers.rhs_spec[2 + axis]]
        steps = out[numbers.out_spec[2 + axis]]
        hole = parameters["lhs_dilation"][axis]
        at = np.arange(steps)[:, None] * parameters["window_strides"][axis] - before
        at = at + np.arange(taps)[None] * parameters["rhs_dilation"][axis]
        inside = (at >= 0) & (at <= (length - 1) * hole)
        met *= int((inside & (at % hole == 0)).sum())
        missed_too *= int((inside & (at % hole == 0) | ~inside & (hole == 1)).sum())
    # The kernel has the input channels of a single group.
    each = 2 * out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * right[numbers.rhs_spec[1]]
    return each * met, each * (missed_too - met)


def scope_of(path: str) -> tuple[str, Direction]:
    """Split a name stack such as transpose(jvp(Model))/layer/add into (path of name scopes, direction)."""
    direction: Direction = "backward" if "transpose(" in path else "forward"
    names = []
    for part in path.split("/"):
        while inner := re.fullmatch(
            r"(?:transpose|jvp|vmap|checkpoint|remat|rematted_computation)\((.*)\)", part
        ):
            part = inner.group(1)
        names.append(part)
    return "/".join(filter(None, names)), direction
