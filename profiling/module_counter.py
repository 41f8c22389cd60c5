"""Count operations as a counter of modules does: the convention `paper`.

Counters that hook into the modules of an eager framework (Table 1 shows that Gao et al. 2022 used one) price
linear layers and convolutions with their biases. They price nothing between modules: no products of
activations with activations (attention), no normalisation, no activation functions, no lookups. Every tap of
a convolution counts, on padding too. A convolution of even width that keeps the length counts one more
output, which such frameworks compute and cut off.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from profiling.flops import called, scope_of
from profiling.primitives import FREE

PARAMETER, DATA = "parameter", "data"


@dataclasses.dataclass(frozen=True)
class _Output:
    """The kind of a layer's result before its bias: of a convolution, or of a linear layer."""

    convolution: bool


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """Operations of the layers in a scope: two for a multiply-add, one for each output element of a bias."""

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
        """Multiply the cost by `count`."""
        return LayerCost(count * self.products, count * self.linear_bias, count * self.convolution_bias)


def count_modules(function: Callable, parameters: Any, *arguments: Any) -> dict[str, LayerCost]:
    """Price the layers of a function's forward pass; nothing is computed.

    Layers are recognised by their data flow. A layer is a convolution, or a product without batch axes, of
    data with values that depend on parameters alone. A bias is a parameter that is added to the result of a
    layer. Products with batch axes (lookups in a codebook, grouped convolutions written as products) do not
    count as layers, so price a model with plain convolutions.

    Args:
        function: (parameters, *arguments) -> any results; not vmapped over parameters.
        parameters: tree of arrays or jax.ShapeDtypeStruct.
        arguments: trees of the same kind.

    Returns:
        Name scope -> operations of the layers in it.

    Raises:
        ValueError: the function has a loop whose number of iterations is not fixed.
    """
    program = jax.make_jaxpr(function)(parameters, *arguments).jaxpr
    own = len(jax.tree.leaves(parameters))
    kinds = [PARAMETER] * own + [DATA] * (len(program.invars) - own)
    found: dict[str, LayerCost] = {}
    _walk(program, kinds, "", 1, found)
    return found


def _walk(jaxpr: Any, kinds: list[Any], path: str, times: int, found: dict[str, LayerCost]) -> list[Any]:
    """Add the price of a program's layers to `found`; return the kinds of its results."""
    kind_of: dict[Any, Any] = dict(zip(jaxpr.invars, kinds, strict=True))
    kind_of |= dict.fromkeys(jaxpr.constvars, PARAMETER)

    def kind(variable: Any) -> Any:
        return PARAMETER if hasattr(variable, "val") else kind_of[variable]  # constants count as parameters

    for equation in jaxpr.eqns:
        here = "/".join(filter(None, (path, str(equation.source_info.name_stack))))
        inputs = [kind(variable) for variable in equation.invars]
        name = equation.primitive.name
        if name == "while":
            raise ValueError(f"{here or 'the function'} has a loop without a fixed number of iterations")
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
        kind_of |= dict(zip(equation.outvars, outputs, strict=True))
    return [kind(variable) for variable in jaxpr.outvars]


def _walk_scan(
    equation: Any, inputs: list[Any], path: str, times: int, found: dict[str, LayerCost]
) -> list[Any]:
    """Price the body of a scan. The kinds of its carries are those after an iteration: zeros become data."""
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
    """Price the branch whose layers cost most, as `profiling.flops` does."""
    walked = []
    for branch in equation.params["branches"]:
        rows: dict[str, LayerCost] = {}
        walked.append((_walk(branch.jaxpr, inputs, path, times, rows), rows))
    outputs, rows = max(walked, key=lambda pair: sum(cost.products for cost in pair[1].values()))
    for scope, cost in rows.items():
        found[scope] = found.get(scope, LayerCost()) + cost
    return outputs


def _layer(equation: Any, inputs: list[Any]) -> tuple[LayerCost, Any]:
    """Return (price, kind of the result) of one operation."""
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
    # A sum of partial products and a result that is only moved still count as the result of the layer.
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
