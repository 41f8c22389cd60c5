"""Count the tensors that a function keeps for its backward pass, by name scope: the accounting `residuals`.

`jax.vjp` returns a function whose closure holds the arrays that the backward pass will read. Each array is
found in the traced program and attributed to the scope of the operation that made it, through scans (where a
layer's tensors are stacked) and called programs. Parameters and inputs exist anyway and count separately. XLA
may keep other tensors in a compiled step: see `profiling.xla`.
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
    """Bytes kept for the backward pass.

    Attributes:
        rows: scope -> bytes of tensors made there; stacked layers count together.
        parameters, inputs: bytes of parameters and inputs that the backward pass reads.
        constants: bytes of arrays that the function closes over and that the backward pass reads.
    """

    rows: dict[str, int]
    parameters: int
    inputs: int
    constants: int = 0

    @property
    def activations(self) -> int:
        """Return the bytes of all tensors that the forward pass made and kept."""
        return sum(self.rows.values())

    def by_module(self, depth: int = 1) -> dict[str, int]:
        """Sum the rows of scopes with the same first `depth` names."""
        found: dict[str, int] = {}
        for scope, size in self.rows.items():
            name = "/".join(scope.split("/")[:depth])
            found[name] = found.get(name, 0) + size
        return found


def residuals(function: Callable, parameters: Any, *arguments: Any) -> Residuals:
    """Count the bytes that jax.vjp keeps of one call; nothing is computed.

    Args:
        function: (parameters, *arguments) -> scalar or arrays. It is differentiated by its parameters.
        parameters: tree of arrays or jax.ShapeDtypeStruct.
        arguments: trees of the same kind.
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


# The results of these primitives share the memory of their operand.
_VIEWS = frozenset(["reshape", "squeeze", "expand_dims", "copy", "stop_gradient"])


def _origins(jaxpr: Any, origin: dict[Any, str], path: str) -> dict[Any, str]:
    """Map each variable to the scope of the operation that made it, or to its origin outside the program."""
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
                # A scan passes on only its constants unchanged.
                constants = equation.params["num_consts"]
                incoming = {v: incoming[v] for v in inner.invars[:constants] if v in incoming}
                incoming |= {v: _name(here) for v in inner.invars[constants:]}
            within = _origins(inner, incoming, here)
            for outside, result in zip(equation.outvars, inner.outvars, strict=True):
                made[outside] = _name(here) if hasattr(result, "val") else within.get(result, _name(here))
        else:
            source = equation.invars[0] if equation.invars else None
            view = equation.primitive.name in _VIEWS and not hasattr(source, "val") and source in made
            for outside in equation.outvars:
                made[outside] = made[source] if view else _name(here)
    return made


def _name(path: str) -> str:
    return scope_of(path)[0]


def _bytes(variable: Any) -> int:
    aval = variable.aval
    size = math.prod(aval.shape)
    # Random keys have no item size of their own.
    return size * (aval.dtype.itemsize if hasattr(aval.dtype, "itemsize") else 8)
