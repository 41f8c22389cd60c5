"""Tensors that a function keeps for its backward pass, by name scope: the accounting `residuals`.

`jax.vjp` gives a function whose closure holds what the backward pass will read. Each of these arrays is
found in the traced program and put down to the scope of the operation that made it, through scans (where
a layer's tensors come stacked) and called programs. Parameters and inputs are there anyway and count apart;
what XLA makes of it in a compiled step is another matter (`profiling.xla`).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from profiling.flops import called, scope_of

PARAMETERS, INPUTS, CONSTANTS = "(parameters)", "(inputs)", "(constants)"


@dataclasses.dataclass(frozen=True)
class Residuals:
    """What is kept for the backward pass.

    Attributes:
        rows: scope -> bytes of tensors made there; stacked layers together.
        parameters, inputs: bytes of those that are kept because they are read again.
        constants: likewise, of arrays that the function closes over.
    """

    rows: dict[str, int]
    parameters: int
    inputs: int
    constants: int = 0

    @property
    def activations(self) -> int:
        """Bytes of all tensors that the forward pass made and kept."""
        return sum(self.rows.values())

    def by_module(self, depth: int = 1) -> dict[str, int]:
        """Rows summed over scopes with the same first `depth` names."""
        found: dict[str, int] = {}
        for scope, size in self.rows.items():
            name = "/".join(scope.split("/")[:depth])
            found[name] = found.get(name, 0) + size
        return found


def residuals(function: Callable, parameters: Any, *arguments: Any) -> Residuals:
    """Bytes that jax.vjp keeps of one call.

    Args:
        function: (parameters, *arguments) -> scalar or arrays; differentiated by its parameters.
        parameters: tree of arrays or jax.ShapeDtypeStruct; nothing is computed.
        arguments: likewise.
    """

    def kept(parameters, *arguments):
        _, pull = jax.vjp(lambda p: function(p, *arguments), parameters)
        return jax.tree.leaves(pull)

    program = jax.make_jaxpr(kept)(parameters, *arguments).jaxpr
    own = len(jax.tree.leaves(parameters))
    origin: dict[Any, str] = dict.fromkeys(program.invars[:own], PARAMETERS)
    origin |= dict.fromkeys(program.invars[own:], INPUTS)
    scopes = _origins(program, origin, "")
    rows: dict[str, int] = {}
    for variable in {v: None for v in program.outvars if not hasattr(v, "val")}:
        scope = scopes.get(variable)
        scope = CONSTANTS if scope is None else scope
        rows[scope] = rows.get(scope, 0) + _bytes(variable)
    return Residuals(
        {scope: size for scope, size in rows.items() if scope not in (PARAMETERS, INPUTS, CONSTANTS)},
        rows.get(PARAMETERS, 0),
        rows.get(INPUTS, 0),
        rows.get(CONSTANTS, 0),
    )


# Results of these are the operand itself, seen otherwise.
_VIEWS = frozenset(["reshape", "squeeze", "expand_dims", "copy", "stop_gradient"])


def _origins(jaxpr: Any, origin: dict[Any, str], path: str) -> dict[Any, str]:
    """Variable -> scope of the operation that made it, or what it came in as."""
    made = dict(origin)
    for equation in jaxpr.eqns:
        here = "/".join(filter(None, (path, str(equation.source_info.name_stack))))
        scanned = equation.primitive.name == "scan"
        inner = equation.params["jaxpr"].jaxpr if scanned else called(equation)
        if inner is not None and len(inner.invars) == len(equation.invars):
            incoming = {
                within: made[outside]
                for within, outside in zip(inner.invars, equation.invars, strict=True)
                if not hasattr(outside, "val") and outside in made
            }
            if scanned:
                # Of what a scan takes in, only its constants are handed on as they are.
                constants = equation.params["num_consts"]
                incoming = {v: incoming[v] for v in inner.invars[:constants] if v in incoming}
                incoming |= {v: _name(here) for v in inner.invars[constants:]}
            within = _origins(inner, incoming, here)
            for outside, result in zip(equation.outvars, inner.outvars, strict=True):
                made[outside] = _name(here) if hasattr(result, "val") else within.get(result, _name(here))
        else:
            source = equation.invars[0] if equation.invars else None
            seen = equation.primitive.name in _VIEWS and not hasattr(source, "val") and source in made
            for outside in equation.outvars:
                made[outside] = made[source] if seen else _name(here)
    return made


def _name(path: str) -> str:
    return scope_of(path)[0]


def _bytes(variable: Any) -> int:
    aval = variable.aval
    size = math.prod(aval.shape)
    # Random keys have no item size of their own.
    return size * (aval.dtype.itemsize if hasattr(aval.dtype, "itemsize") else 8)
