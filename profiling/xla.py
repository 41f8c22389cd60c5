"""Read XLA's analyses of a compiled program: operations, as a cross-check of `flops`, and its memory plan.

XLA counts the body of a loop once, prices elementwise work by formulas of its own, skips taps on padding, and
may have no price for library calls. On a CPU, its `peak_memory_in_bytes` leaves temporaries out. So
impossible figures are refused, and the total is arguments + outputs + temporaries - aliased.
"""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """XLA's static plan of one compiled program, in bytes.

    Attributes:
        arguments, outputs, temporaries: buffers of each kind.
        aliased: outputs that reuse the memory of donated arguments.
        code: the program itself.
    """

    arguments: int
    outputs: int
    temporaries: int
    aliased: int
    code: int

    @property
    def total(self) -> int:
        """Return the memory while the program runs, without its code."""
        return self.arguments + self.outputs + self.temporaries - self.aliased


def operations(compiled: Any) -> int:
    """Return XLA's count of the floating-point operations of a compiled program (jax.stages.Compiled).

    Raises:
        ValueError: XLA gives no count, or a negative or infinite one.
    """
    analysis = compiled.cost_analysis()
    if isinstance(analysis, list | tuple):  # older versions have one for each computation
        analysis = analysis[0] if analysis else None
    flops = (analysis or {}).get("flops")
    if flops is None or not math.isfinite(flops) or flops < 0:
        raise ValueError(f"XLA does not know how many operations this program takes (its count is {flops})")
    return int(flops)


def memory_plan(compiled: Any) -> MemoryPlan:
    """Return XLA's memory plan of a compiled program (jax.stages.Compiled).

    Raises:
        ValueError: the backend gives no plan.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise ValueError("this backend gives no memory plan of a compiled program")
    return MemoryPlan(
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        aliased=analysis.alias_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
    )
