"""Read the live memory of a compiled program, moment by moment, and its peak by name scope.

XLA decides the order of a program's operations and the place of each temporary in one arena, and it can write
down the moments at which each temporary is live. These give the part of the arena that is in use at each
moment.
"""

import dataclasses
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from profiling.flops import Direction, scope_of
from profiling.xla import MemoryPlan, memory_plan
from profiling.xla_messages import parse

_RANGE = re.compile(r"^\s+(\S+)\{([\d,]*)\}:(\d+)-(\d+)$")
_MOMENT = re.compile(r"^\s+(\d+):(\S+)$")
# Parts of an operation's path that come from the program's structure and are no name scopes.
_STRUCTURE = re.compile(
    r"p?jit\(.*\)|(vmap|jvp|transpose|shard_map)\((jvp\(\))?\)|while|body|cond|closed_call|checkpoint|"
    r"rematted_computation|eval_jaxpr|branch_\w+|.*<locals>.*|.*->.*"
)


@dataclasses.dataclass(frozen=True)
class LiveTemporaries:
    """Temporaries of one origin that are live at the peak.

    Attributes:
        scope, direction: scope and direction of the operation that makes them.
        operation: primitive of that operation.
        bytes: bytes of all of them together.
        buffers: number of buffers.
    """

    scope: str
    direction: Direction
    operation: str
    bytes: int
    buffers: int


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Memory over one run of a program.

    Attributes:
        plan: XLA's static plan.
        live_bytes: int64 [moment], bytes of temporaries in use; the body of a loop appears once.
        scopes: [moment], path of name scopes of the operation that runs then.
        directions: [moment], direction of that operation.
        peak_moment: the moment with the most live bytes.
        at_peak: temporaries that are live at that moment, largest first.
    """

    plan: MemoryPlan
    live_bytes: np.ndarray
    scopes: list[str]
    directions: list[Direction]
    peak_moment: int
    at_peak: list[LiveTemporaries]

    @property
    def standing_bytes(self) -> int:
        """Return the bytes of arguments and results, which are live all the time."""
        return self.plan.total - self.plan.temporaries

    @property
    def peak_bytes(self) -> int:
        """Return the most live bytes at any moment; the plan's total also counts gaps between buffers."""
        return self.standing_bytes + int(self.live_bytes[self.peak_moment])


@dataclasses.dataclass(frozen=True)
class _Buffer:
    name: str
    start: int
    end: int
    offset: int
    size: int


def compile_with_timeline(lowered: Any, **options: Any) -> tuple[Any, Timeline]:
    """Compile a lowered program and read its timeline.

    Args:
        lowered: jax.stages.Lowered.
        options: further XLA options of this compilation.

    Returns:
        (compiled program, its timeline).

    Raises:
        ValueError: this backend or version of XLA does not write live ranges.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    # A program from the persistent cache comes without live ranges. jax checks for the cache once and
    # remembers the answer until the reset.
    cached = getattr(jax.config, "jax_enable_compilation_cache")  # noqa: B009 (no stub knows it)
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        with tempfile.TemporaryDirectory() as folder:
            compiled = lowered.compile(compiler_options={**options, "xla_dump_to": folder})
            written = sorted(Path(folder).glob("*live-range.txt"), key=lambda path: path.stat().st_size)
            text = written[-1].read_text() if written else ""
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
        compilation_cache.reset_cache()
    return compiled, read(compiled, text)


def read(compiled: Any, live_ranges: str) -> Timeline:
    """Build the timeline of a compiled program from XLA's text of its live ranges."""
    assignment = parse("BufferAssignment", compiled.memory_analysis().serialized_buffer_assignment_proto)
    module = compiled.runtime_executable().hlo_modules()[0]
    module = parse("HloModule", module.as_serialized_hlo_module_proto())
    instructions = [i for computation in module.computations for i in computation.instructions]
    names = {instruction.id: instruction.name for instruction in instructions}
    paths = {instruction.name: instruction.metadata.op_name for instruction in instructions}
    moments, ranges = _read_ranges(live_ranges)
    if not moments or not assignment.logical_buffers:
        raise ValueError("this backend's compiler does not tell how long its buffers live")
    temporaries = [
        allocation
        for allocation in assignment.buffer_allocations
        if not (
            allocation.is_entry_computation_parameter
            or allocation.maybe_live_out
            or allocation.is_constant
            or allocation.is_thread_local
        )
    ]
    places, base = {}, 0
    for allocation in temporaries:
        for assigned in allocation.assigned:
            places[assigned.logical_buffer_id] = (base + assigned.offset, assigned.size)
        base += max((a.offset + a.size for a in allocation.assigned), default=0)
    buffers = []
    for logical in assignment.logical_buffers:
        at = logical.defined_at
        name = names.get(at.instruction_id, "")
        span = ranges.get((name, tuple(at.shape_index)))
        if logical.id in places and span is not None:
            buffers.append(_Buffer(name, *span, *places[logical.id]))
    live = _occupied(buffers, len(moments))
    peak = int(live.argmax())
    told = [scope_of_operation(paths.get(name, "")) for name in moments]
    return Timeline(
        memory_plan(compiled),
        live,
        [scope for scope, _, _ in told],
        [direction for _, direction, _ in told],
        peak,
        _at(peak, buffers, paths),
    )


def _read_ranges(text: str) -> tuple[list[str], dict[tuple[str, tuple[int, ...]], tuple[int, int]]]:
    """Return (instructions in the order in which they run, buffer -> first and last moment)."""
    moments, ranges = [], {}
    for line in text.splitlines():
        if "Live ranges at" in line:
            break
        if found := _RANGE.match(line):
            name, index, start, end = found.groups()
            ranges[name, tuple(int(i) for i in index.split(",") if i)] = int(start), int(end)
        elif found := _MOMENT.match(line):
            moments.append(found.group(2))
    return moments, ranges


def _occupied(buffers: list[_Buffer], moments: int) -> np.ndarray:
    """Count the bytes of the arena in use at each moment; buffers that share a place count once."""
    live = np.zeros(moments, np.int64)
    by_moment: list[list[_Buffer]] = [[] for _ in range(moments)]
    for buffer in buffers:
        for moment in range(buffer.start, min(buffer.end, moments - 1) + 1):
            by_moment[moment].append(buffer)
    for moment, present in enumerate(by_moment):
        live[moment] = sum(size for _, size in _places(present))
    return live


def _places(present: list[_Buffer]) -> list[tuple[_Buffer, int]]:
    """Return (buffer, bytes of its place that no buffer before it uses) in the order of places."""
    found, reached = [], 0
    for buffer in sorted(present, key=lambda b: (b.offset, -b.size)):
        end = buffer.offset + buffer.size
        if end > reached:
            found.append((buffer, end - max(buffer.offset, reached)))
            reached = end
    return found


def _at(moment: int, buffers: list[_Buffer], paths: dict[str, str]) -> list[LiveTemporaries]:
    """Group the temporaries that are live at a moment by origin, largest first."""
    present = [buffer for buffer in buffers if buffer.start <= moment <= buffer.end]
    rows: dict[tuple[str, Direction, str], list[int]] = {}
    for buffer, size in _places(present):
        path = paths.get(buffer.name) or _neighbour(buffer, buffers, paths)
        rows.setdefault(scope_of_operation(path), []).append(size)
    groups = [LiveTemporaries(*key, sum(sizes), len(sizes)) for key, sizes in rows.items()]
    return sorted(groups, key=lambda row: -row.bytes)


def _neighbour(buffer: _Buffer, buffers: list[_Buffer], paths: dict[str, str]) -> str:
    """Find the path of the operation that fills a loop's buffer: the nearest in time with the same place."""
    same = [
        other
        for other in buffers
        if (other.offset, other.size) == (buffer.offset, buffer.size) and paths.get(other.name)
    ]
    return paths[min(same, key=lambda other: abs(other.start - buffer.start)).name] if same else ""


def scope_of_operation(path: str) -> tuple[str, Direction, str]:
    """Split an operation's path such as jit(f)/jvp(Model)/layer/add into (scope, direction, primitive)."""
    parts = path.split("/")
    kept = [part for part in parts[:-1] if not _STRUCTURE.fullmatch(part)]
    scope, direction = scope_of("/".join(kept))
    if "transpose(" in path:
        direction = "backward"
    return scope, direction, parts[-1] or "(unnamed)"
