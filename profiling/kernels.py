"""Measure the device time of a compiled program by name scope, with jax's profiler.

The time of a kernel of several fused operations counts for the scope of the last one.
"""

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from profiling.flops import Direction
from profiling.timeline import scope_of_operation
from profiling.xla_messages import parse

MOST_UNATTRIBUTED = 0.2  # as a share of the device's time
# The time of these operations is the time of operations within them.
_CONTAINERS = frozenset(["while", "conditional", "call", "async-start", "async-done"])


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An operation of the compiled program.

    Attributes:
        name: XLA's name of it.
        scope, direction, primitive: origin of the operation; empty for operations that XLA added.
        seconds: seconds in one call of the program.
    """

    name: str
    scope: str
    direction: Direction
    primitive: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class DeviceTime:
    """Device time of a program.

    Attributes:
        kernels: kernels, longest first.
        unattributed_seconds: seconds in one call of kernels that the profiler gives no operation for.
    """

    kernels: list[Kernel]
    unattributed_seconds: float

    @property
    def busy_seconds(self) -> float:
        """Return the seconds of all kernels in one call; on several threads or streams they overlap."""
        return sum(kernel.seconds for kernel in self.kernels) + self.unattributed_seconds

    def by_scope(self) -> dict[tuple[str, Direction], float]:
        """Sum the seconds in one call by (scope, direction)."""
        found: dict[tuple[str, Direction], float] = {}
        for kernel in self.kernels:
            key = (kernel.scope, kernel.direction)
            found[key] = found.get(key, 0.0) + kernel.seconds
        return found


def device_time(lowered: Any, compiled: Any, arguments: tuple[Any, ...], calls: int = 3) -> DeviceTime:
    """Profile some calls of a step whose first argument and first result are its state.

    Where a GPU runs kernels in graphs, which hide their operations, the step is compiled again without
    graphs.

    Args:
        lowered: jax.stages.Lowered, the step with its state donated.
        compiled: the compiled step.
        arguments: the state, which is consumed, and the other arguments.
        calls: number of calls.

    Raises:
        ValueError: the profiler saw no operation of the program.
    """
    state, *others = arguments
    try:
        found = _profile(compiled, jax.tree.map(jnp.copy, state), others, calls)
        known = found.unattributed_seconds < MOST_UNATTRIBUTED * found.busy_seconds
        if known or jax.default_backend() != "gpu":
            return found
    except ValueError:
        if jax.default_backend() != "gpu":
            raise
    plain = lowered.compile(compiler_options={"xla_gpu_enable_command_buffer": ""})
    return _profile(plain, state, others, calls)


def _profile(compiled: Any, state: Any, others: list[Any], calls: int) -> DeviceTime:
    """Profile some calls after a first one."""
    state, *_ = jax.block_until_ready(compiled(state, *others))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(calls):
                state, *_ = jax.block_until_ready(compiled(state, *others))
        written = sorted(Path(folder).rglob("*.xplane.pb"))
        if not written:
            raise ValueError("the profiler wrote nothing")
        data = jax.profiler.ProfileData.from_file(str(written[-1]))
    module = compiled.runtime_executable().hlo_modules()[0]
    return read(data, module.as_serialized_hlo_module_proto(), calls)


def read(data: Any, module: bytes, calls: int) -> DeviceTime:
    """Match a profile's kernels with the operations of one module.

    Args:
        data: jax.profiler.ProfileData, or an object with its planes.
        module: serialised HloModuleProto.
        calls: number of profiled calls.

    Raises:
        ValueError: the profile has no operation of the module.
    """
    parsed = parse("HloModule", module)
    operations = {i.name: i for computation in parsed.computations for i in computation.instructions}
    seconds: dict[str, float] = {}
    unattributed = 0.0
    for name, duration in _events(data):
        if name is None or name not in operations:
            unattributed += duration
        elif operations[name].opcode not in _CONTAINERS:
            seconds[name] = seconds.get(name, 0.0) + duration
    if not seconds:
        raise ValueError("the profiler saw no operation of this program")
    kernels = [
        Kernel(name, *scope_of_operation(operations[name].metadata.op_name), total / calls)
        for name, total in seconds.items()
    ]
    return DeviceTime(sorted(kernels, key=lambda kernel: -kernel.seconds), unattributed / calls)


def _events(data: Any) -> Iterator[tuple[str | None, float]]:
    """Yield (operation or None, seconds) for all kernels of an accelerator, or else of a CPU's threads."""
    planes = list(data.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    if not devices:
        yield from _host_events(event for plane in planes for line in plane.lines for event in line.events)
    for plane in devices:
        lines = list(plane.lines)
        # Where operations have a line of their own, the lines of streams repeat it.
        own = [line for line in lines if line.name == "XLA Ops"]
        for line in own or [line for line in lines if line.name.startswith("Stream")]:
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                yield None if operation is None else str(operation), event.duration_ns * 1e-9


def _host_events(events: Iterable[Any]) -> Iterator[tuple[str, float]]:
    """Yield (operation, seconds) for XLA:CPU's operations, from their start to their end event.

    The event of a product that runs on other threads ends at once. A second event named "end: " and the
    operation's name follows when the product is done.
    """
    begun: dict[str, list[tuple[float, float]]] = {}
    ended: dict[str, list[float]] = {}
    for event in events:
        if event.name.startswith("end: "):
            ended.setdefault(event.name.removeprefix("end: "), []).append(event.start_ns)
        elif (operation := dict(event.stats).get("hlo_op")) is not None:
            begun.setdefault(str(operation), []).append((event.start_ns, event.duration_ns))
    for operation, spans in begun.items():
        ends = sorted(ended.get(operation, []))
        spans.sort()
        paired = ends if len(ends) == len(spans) else [start + length for start, length in spans]
        for (start, length), end in zip(spans, paired, strict=True):
            yield operation, max(length, end - start) * 1e-9
