"""Floating-point operations of any function, per name scope, by a walk over its jaxpr.

XLA's own cost analysis counts the body of a loop once, leaves out what it optimises away and charges
elementwise work by its own formulas. This counts the program as it is written, but for what nobody uses.

Conventions:

- A multiply-add is two operations. Products (dot_general, conv_general_dilated), elementwise work
  (one an output element; reductions one an input element) and transcendental functions (one an
  element) stand in columns of their own.
- Convolutions: a tap is counted where it meets an element of the input. Taps on padding are in
  `padding_products`, which XLA skips and textbooks count; taps on the holes of a dilated input are
  nothing to anyone. A convolution's derivatives then cost what it costs.
- A scan's body counts as often as it runs. A conditional counts as its most expensive branch. A loop
  without a fixed number of turns, and any primitive that is not known here, is listed in `unpriced`.
- Moving data (reshape, gather, sort, type conversion, ...) and drawing random bits cost nothing here.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import numpy as np
from jax.interpreters import partial_eval

Direction = Literal["forward", "backward"]

ELEMENTWISE = frozenset(
    [
        "abs",
        "add",
        "add_any",
        "and",
        "ceil",
        "clamp",
        "complex",
        "conj",
        "div",
        "eq",
        "floor",
        "ge",
        "gt",
        "imag",
        "integer_pow",
        "is_finite",
        "le",
        "lt",
        "max",
        "min",
        "mul",
        "ne",
        "neg",
        "nextafter",
        "not",
        "or",
        "real",
        "rem",
        "round",
        "select_n",
        "shift_left",
        "shift_right_arithmetic",
        "shift_right_logical",
        "sign",
        "square",
        "sub",
        "xor",
        "population_count",
        "clz",
    ]
)
TRANSCENDENTAL = frozenset(
    [
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "cbrt",
        "cos",
        "cosh",
        "digamma",
        "erf",
        "erf_inv",
        "erfc",
        "exp",
        "exp2",
        "expm1",
        "lgamma",
        "log",
        "log1p",
        "logistic",
        "pow",
        "rsqrt",
        "sin",
        "sinh",
        "sqrt",
        "tan",
        "tanh",
    ]
)
REDUCTIONS = frozenset(
    [
        "argmax",
        "argmin",
        "cumlogsumexp",
        "cummax",
        "cummin",
        "cumprod",
        "cumsum",
        "reduce_and",
        "reduce_max",
        "reduce_min",
        "reduce_or",
        "reduce_prod",
        "reduce_sum",
        "reduce_xor",
        "scatter-add",
        "scatter_add",
        "scatter_max",
        "scatter_min",
        "scatter_mul",
    ]
)
# One an element of the window for each result.
WINDOWS = frozenset(["reduce_window_max", "reduce_window_min", "reduce_window_sum"])
# Programs within a program that run exactly once. Others with a program of their own (kernels, reductions
# by a function) are priced by what they are, or named as unpriced.
CALLS = frozenset(
    [
        "call",
        "checkpoint",
        "closed_call",
        "core_call",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
        "jit",
        "pjit",
        "remat",
        "remat2",
    ]
)
FREE = frozenset(
    [
        "bitcast_convert_type",
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "copy_p",
        "create_token",
        "device_put",
        "dynamic_slice",
        "dynamic_update_slice",
        "expand_dims",
        "gather",
        "iota",
        "optimization_barrier",
        "pad",
        "random_bits",
        "random_fold_in",
        "random_seed",
        "random_split",
        "random_unwrap",
        "random_wrap",
        "reduce_precision",
        "reshape",
        "rev",
        "scatter",
        "sharding_constraint",
        "slice",
        "sort",
        "split",
        "squeeze",
        "stack",
        "unstack",
        "stop_gradient",
        "threefry2x32",
        "transpose",
        "debug_callback",
        "axis_index",
        "pvary",
        "psum",
        "psum_invariant",
        "all_gather",
        "all_gather_invariant",
        "all_to_all",
        "ppermute",
        "reshard",
    ]
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Operations, exact integers."""

    products: int = 0
    padding_products: int = 0
    elementwise: int = 0
    transcendental: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            *(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True))
        )

    def times(self, count: int) -> "Cost":
        """The cost of doing it `count` times."""
        return Cost(*(count * value for value in dataclasses.astuple(self)))

    @property
    def flops(self) -> int:
        """Products, elementwise and transcendental operations together, without padding."""
        return self.products + self.elementwise + self.transcendental

    @property
    def size(self) -> int:
        """By what the dearest branch of a conditional is told."""
        return self.flops


@dataclasses.dataclass(frozen=True)
class Report:
    """What a function costs.

    Attributes:
        rows: (scope, direction) -> cost; scopes are paths of name scopes, "" outside of all.
        unpriced: primitives and loops that could not be priced -> how often they were met.
    """

    rows: dict[tuple[str, Direction], Cost]
    unpriced: dict[str, int]

    @property
    def total(self) -> Cost:
        """The sum of all rows."""
        return sum(self.rows.values(), Cost())

    def by_module(self, depth: int = 1) -> dict[tuple[str, Direction], Cost]:
        """Rows summed over scopes with the same first `depth` names."""
        found: dict[tuple[str, Direction], Cost] = {}
        for (scope, direction), cost in self.rows.items():
            key = ("/".join(scope.split("/")[:depth]), direction)
            found[key] = found.get(key, Cost()) + cost
        return found


def count(function: Callable, *arguments: Any, **options: Any) -> Report:
    """Price one call of a function.

    Args:
        function: any function that jax can trace, derivatives and vmapped ones included.
        arguments: arrays or jax.ShapeDtypeStruct trees; nothing is computed.
        options: keyword arguments of the function.

    Returns:
        Operations by name scope and direction.
    """
    program = jax.make_jaxpr(function)(*arguments, **options)
    return count_jaxpr(program.jaxpr)


def count_jaxpr(jaxpr: Any) -> Report:
    """As `count`, of a traced program."""
    rows: dict[tuple[str, Direction], Cost] = {}
    unpriced: dict[str, int] = {}
    for path, cost in walk(without_dead_code(jaxpr), _price, unpriced):
        if cost != Cost():
            key = scope_of(path)
            rows[key] = rows.get(key, Cost()) + cost
    return Report(rows, unpriced)


def without_dead_code(jaxpr: Any) -> Any:
    """A program without operations whose results nobody uses: no compiler runs them.

    Derivatives leave some, as of the input that no gradient is asked of.
    """
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]


def walk(
    jaxpr: Any, price: Callable[[Any], Any], unpriced: dict[str, int], path: str = "", times: int = 1
) -> Iterator[tuple[str, Any]]:
    """What every operation of a program costs, as often as it runs.

    Args:
        jaxpr: a traced program.
        price: equation -> a cost with `times(count)` and `size`, or None where it is not known.
        unpriced: what could not be priced is added here, by name.
        path: name stack that the program stands in.
        times: how often it runs.

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
    """The program that an equation calls once (jit, remat, custom derivatives), or None."""
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
    if name in ELEMENTWISE:
        return Cost(elementwise=_size(equation.outvars))
    if name in TRANSCENDENTAL:
        return Cost(transcendental=_size(equation.outvars))
    if name == "reduce":
        # By a function of two numbers: as often as it is called, once an input element.
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


def _dot_products(equation: Any) -> int:
    (left_contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * _size(equation.outvars) * math.prod(shape[axis] for axis in left_contracted)


def _convolution_products(equation: Any) -> tuple[int, int]:
    """(products with the input, products with padding)."""
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
    # The kernel's input channels are those of one group already.
    each = 2 * out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * right[numbers.rhs_spec[1]]
    return each * met, each * (missed_too - met)


def scope_of(path: str) -> tuple[str, Direction]:
    """(path of name scopes, direction) of a name stack such as transpose(jvp(Model))/layer/add."""
    direction: Direction = "backward" if "transpose(" in path else "forward"
    names = []
    for part in path.split("/"):
        while inner := re.fullmatch(
            r"(?:transpose|jvp|vmap|checkpoint|remat|rematted_computation)\((.*)\)", part
        ):
            part = inner.group(1)
        names.append(part)
    return "/".join(filter(None, names)), direction
