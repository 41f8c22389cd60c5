"""What XLA says of a compiled program: a cross-check of `flops`, and memory by its own plan.

XLA counts a loop's body once, prices elementwise work by formulas of its own, skips taps on padding, and may
not know the price of library calls; on CPU its `peak_memory_in_bytes` leaves temporaries out. So figures
that cannot be right are refused, and the static total is arguments + outputs + temporaries - aliased.
"""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """XLA's static plan of one compiled program, in bytes.

    Attributes:
        arguments, outputs, temporaries: buffers of each kind.
        aliased: outputs that take the place of donated arguments.
        code: the program itself.
    """

    arguments: int
    outputs: int
    temporaries: int
    aliased: int
    code: int

    @property
    def total(self) -> int:
        """All that is in memory while the program runs, its code apart."""
        return self.arguments + self.outputs + self.temporaries - self.aliased


def operations(compiled: Any) -> int:
    """XLA's count of floating-point operations of a compiled program (jax.stages.Compiled).

    Raises:
        ValueError: XLA gave none, or one that cannot be: none, negative or not finite.
    """
    analysis = compiled.cost_analysis()
    if isinstance(analysis, list | tuple):  # one per computation, in older versions
        analysis = analysis[0] if analysis else None
    flops = (analysis or {}).get("flops")
    if flops is None or not math.isfinite(flops) or flops < 0:
        raise ValueError(f"XLA does not know how many operations this program takes (it says {flops})")
    return int(flops)


def memory_plan(compiled: Any) -> MemoryPlan:
    """XLA's memory plan of a compiled program (jax.stages.Compiled).

    Raises:
        ValueError: the backend gives none.
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
