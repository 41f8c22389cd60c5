"""Operations as a counter of modules sees them: the convention `paper`.

Counters that hook into modules of an eager framework (Gao et al. 2022 used one, as its Table 1 shows) price
linear layers and convolutions with their biases, and nothing that happens between modules: no products
of activations with activations (attention), no normalisation, no activation functions, no lookups. Every
tap of a convolution counts, on padding too, and a convolution of even width that keeps the length counts
the one output more that such frameworks compute and cut off.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from profiling.flops import FREE, called, scope_of

PARAMETER, DATA = "parameter", "data"


@dataclasses.dataclass(frozen=True)
class _Output:
    """What a layer's product gave, before its bias: by a convolution, or by a linear layer."""

    convolution: bool


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """Operations of the layers in a scope, a multiply-add being two; biases are one an output element."""

    products: int = 0
    linear_bias: int = 0
    convolution_bias: int = 0

    def __add__(self, other: "LayerCost") -> "LayerCost":
        return LayerCost(
            self.products + other.products,
            self.linear_bias + other.linear_bias,
            self.convolution_bias + other.convolution_bias,
        )

    def times(self, count: int) -> "LayerCost":
        """The cost of doing it `count` times."""
        return LayerCost(count * self.products, count * self.linear_bias, count * self.convolution_bias)


def count_modules(function: Callable, parameters: Any, *arguments: Any) -> dict[str, LayerCost]:
    """Price the layers of a function's forward pass.

    Layers are told by their data flow: a product without batch axes, or a convolution, of data with
    what follows from parameters alone; and a bias by being a parameter that is added to such a result.
    Products with batch axes (lookups in a codebook, grouped convolutions written as products) are no
    layers here: price a model with its convolutions as convolutions.

    Args:
        function: (parameters, *arguments) -> anything; not vmapped over parameters.
        parameters: tree of arrays or jax.ShapeDtypeStruct.
        arguments: likewise.

    Returns:
        Name scope -> operations of the layers in it.

    Raises:
        ValueError: a loop whose number of turns is not fixed.
    """
    program = jax.make_jaxpr(function)(parameters, *arguments).jaxpr
    own = len(jax.tree.leaves(parameters))
    kinds = [PARAMETER] * own + [DATA] * (len(program.invars) - own)
    found: dict[str, LayerCost] = {}
    _walk(program, kinds, "", 1, found)
    return found


def _walk(jaxpr: Any, kinds: list[Any], path: str, times: int, found: dict[str, LayerCost]) -> list[Any]:
    """Add the price of a program's layers to `found`; returns the kinds of its results."""
    held: dict[Any, Any] = dict(zip(jaxpr.invars, kinds, strict=True))
    held |= dict.fromkeys(jaxpr.constvars, PARAMETER)

    def kind(variable: Any) -> Any:
        return PARAMETER if hasattr(variable, "val") else held[variable]  # constants are no data

    for equation in jaxpr.eqns:
        here = "/".join(filter(None, (path, str(equation.source_info.name_stack))))
        inputs = [kind(variable) for variable in equation.invars]
        name = equation.primitive.name
        if name == "while":
            raise ValueError(f"a loop without a fixed number of turns in {here or 'the function'}")
        if name == "scan":
            outputs = _walk_scan(equation, inputs, here, times, found)
        elif name == "cond":
            outputs = _walk_cond(equation, inputs[1:], here, times, found)
        elif (inner := called(equation)) is not None and len(inner.invars) == len(inputs):
            outputs = _walk(inner, inputs, here, times, found)
        else:
            price, output = _layer(equation, inputs)
            if price != LayerCost():
                scope = scope_of(here)[0]
                found[scope] = found.get(scope, LayerCost()) + price.times(times)
            outputs = [output] * len(equation.outvars)
        held |= dict(zip(equation.outvars, outputs, strict=True))
    return [kind(variable) for variable in jaxpr.outvars]


def _walk_scan(
    equation: Any, inputs: list[Any], path: str, times: int, found: dict[str, LayerCost]
) -> list[Any]:
    """A scan's body, with its carries as what they become: a state of zeros is data after a turn."""
    body, length = equation.params["jaxpr"].jaxpr, equation.params["length"]
    first = equation.params["num_consts"]
    carries = slice(first, first + equation.params["num_carry"])
    inputs = list(inputs)
    while True:
        outputs = _walk(body, inputs, path, 1, {})
        became = [
            before if before == after else DATA
            for before, after in zip(inputs[carries], outputs[: equation.params["num_carry"]], strict=True)
        ]
        if became == inputs[carries]:
            return _walk(body, inputs, path, times * length, found)
        inputs[carries] = became


def _walk_cond(
    equation: Any, inputs: list[Any], path: str, times: int, found: dict[str, LayerCost]
) -> list[Any]:
    """The branch whose layers cost most, as in `profiling.flops`."""
    walked = []
    for branch in equation.params["branches"]:
        rows: dict[str, LayerCost] = {}
        walked.append((_walk(branch.jaxpr, inputs, path, times, rows), rows))
    outputs, rows = max(walked, key=lambda pair: sum(cost.products for cost in pair[1].values()))
    for scope, cost in rows.items():
        found[scope] = found.get(scope, LayerCost()) + cost
    return outputs


def _layer(equation: Any, inputs: list[Any]) -> tuple[LayerCost, Any]:
    """(price, kind of the result) of one operation."""
    if all(kind == PARAMETER for kind in inputs):
        return LayerCost(), PARAMETER
    name, size = equation.primitive.name, math.prod(equation.outvars[0].aval.shape)
    weighted = inputs.count(PARAMETER) == 1
    if name == "dot_general":
        (contracted, _), (batched, _) = equation.params["dimension_numbers"]
        if not weighted or batched:
            return LayerCost(), DATA
        shape = equation.invars[0].aval.shape
        return LayerCost(2 * size * math.prod(shape[axis] for axis in contracted)), _Output(False)
    if name == "conv_general_dilated":
        if not weighted:
            return LayerCost(), DATA
        return LayerCost(_convolution_products(equation, size)), _Output(True)
    outputs = [kind for kind in inputs if isinstance(kind, _Output)]
    if name == "add" and len(outputs) == 1 and weighted:
        bias = LayerCost(convolution_bias=size) if outputs[0].convolution else LayerCost(linear_bias=size)
        return bias, DATA
    # Sums of partial products, and results that are only moved, are still a layer's result.
    if outputs and (name in FREE or (name in ("add", "add_any") and len(outputs) == 2)):
        return LayerCost(), outputs[0]
    return LayerCost(), DATA


def _convolution_products(equation: Any, size: int) -> int:
    parameters = equation.params
    kernel = equation.invars[1].aval.shape
    spec = parameters["dimension_numbers"].rhs_spec
    taps = [kernel[axis] for axis in spec[2:]]
    cut_off = 0
    same = all(sum(pad) == width - 1 for pad, width in zip(parameters["padding"], taps, strict=True))
    if len(taps) == 1 and same and taps[0] % 2 == 0 and parameters["window_strides"] == (1,):
        frames = equation.outvars[0].aval.shape[parameters["dimension_numbers"].out_spec[2]]
        cut_off = size // frames
    return 2 * (size + cut_off) * kernel[spec[1]] * math.prod(taps)
