"""`--memory-budget`: choose the exact combination of methods with the fewest operations whose memory fits."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from experiments.options.errors import UsageError
from experiments.process.child_process import run_in_child
from w2v_jax import memory_methods
from w2v_jax.config import ModelConfig

# A process on a CPU holds libraries, the program and scratch memory of products beside a step's plan. For
# exact at batch 8 x 12 s on two cores, base and large took 0.41 to 0.46 GB more than their plans (reproduce
# frontier). Plain with huge pages took 0.80 GB more; commands with a budget use no huge pages.
PROCESS_BYTES = 500_000_000
UNITS = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_ROWS = "remat-attention,remat-similarity"
_LAYERS = f"encoder-blocks,remat-layers,remat-feed-forward,{_ROWS}"


class Choice(NamedTuple):
    """The combination that was chosen, and its cost.

    Attributes:
        method: names of w2v_jax.memory_methods, separated by commas.
        needed_bytes: memory that the process needs.
        operations: operations of a step over those of the plain step.
    """

    method: str
    needed_bytes: int
    operations: float

    def describe(self, budget_bytes: float) -> str:
        """Describe the choice in one line."""
        return (
            f"memory budget {budget_bytes / 1e9:g} GB: method {self.method}, which takes "
            f"{self.needed_bytes / 1e9:.2f} GB and {self.operations:.2f} times the operations of plain"
        )


def parse(text: str) -> float:
    """Convert a size such as "4GB", "800MB" or "3.5GiB" to bytes.

    Raises:
        UsageError: the text is no such size.
    """
    parts = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", text)
    if parts is None or parts[2].upper() not in UNITS or float(parts[1]) <= 0:
        raise UsageError(f"--memory-budget takes a size such as 4GB, 800MB or 3.5GiB, got '{text}'")
    return float(parts[1]) * UNITS[parts[2].upper()]


def ladder(batch: int, config: ModelConfig) -> Iterator[str]:
    """Yield exact combinations of methods that a model has the parts for; none takes more memory than those
    before it."""
    lacking = memory_methods.lacking(config)
    names = [
        ",".join(name for name in method.split(",") if name not in lacking) for method in _combinations(batch)
    ]
    yield from dict.fromkeys(names)


def _combinations(batch: int) -> Iterator[str]:
    yield memory_methods.PLAIN
    yield _ROWS
    yield f"remat-cnn,{_ROWS}"
    yield f"encoder-blocks,{_ROWS}"
    yield f"encoder-blocks,remat-layers,{_ROWS}"
    yield _LAYERS
    rows = batch // 2
    while rows > 1:
        yield f"{_LAYERS},micro-{rows}"
        rows //= 2
    yield "exact"


def choose(
    settings: Any,
    budget_bytes: float,
    needed: Callable[[Any], int] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Choice:
    """Choose the combination to train with.

    Args:
        settings: StepSettings; their method does not count.
        budget_bytes: memory that the process may take.
        needed: settings -> bytes of the process; by default the step's plan and `PROCESS_BYTES`.
        say: receives a line for every combination that is compiled.

    Raises:
        UsageError: no combination fits; the message gives the size of the leanest one.
    """
    from experiments.costs.step import training_step
    from profiling import flops

    def priced(method: str) -> tuple[Any, float]:
        with_method = dataclasses.replace(settings, method=method)
        step = training_step.build(with_method)
        return with_method, float(flops.count(step.function, *step.arguments).total.flops)

    # The sort is stable: among equal operations, the combination with more memory comes first. It is faster.
    candidates = [(method, *priced(method)) for method in ladder(settings.batch, settings.config)]
    plain = candidates[0][2]
    tried: list[tuple[str, int]] = []
    for method, with_method, operations in sorted(candidates, key=lambda candidate: candidate[2]):
        size = (needed or process_bytes)(with_method)
        say(f"{method}: {size / 1e9:.2f} GB")
        if size <= budget_bytes:
            return Choice(method, size, operations / plain)
        tried.append((method, size))
    leanest, size = min(tried, key=lambda row: row[1])
    raise UsageError(
        f"--memory-budget {budget_bytes / 1e9:g} GB is too little: the leanest exact method that was tried, "
        f"{leanest}, takes {size / 1e9:.2f} GB; give a larger budget, a smaller --batch or --seconds, or an "
        "--optimizer with less state"
    )


def process_bytes(settings: Any, steps: int = 1, models: int = 0) -> int:
    """Estimate the memory of a process that trains: its steps' plans, further arrays and, on a CPU, the rest.

    Args:
        settings: StepSettings.
        steps: steps that the process takes side by side.
        models: arrays of the model's size that the process holds beside the steps.
    """
    from experiments.costs.step import training_step
    from profiling.xla import memory_plan

    step = training_step.build(settings)
    arrays = models * training_step.tree_bytes(step.parameters)
    return steps * memory_plan(step.compile()).total + arrays + bytes_beside_the_plan()


def choose_in_child(settings: dict[str, Any], budget_bytes: float, steps: int = 1, models: int = 0) -> Choice:
    """Call `choose` in a child process, so that this process does not keep the compilers' memory.

    Args:
        settings: fields of StepSettings.
        budget_bytes: memory that the process may take.
        steps, models: see `process_bytes`.

    Raises:
        UsageError: no combination fits.
    """
    found = run_in_child(_choose, settings, budget_bytes, steps, models)
    if "refused" in found:
        raise UsageError(found["refused"])
    return Choice(**found)


def _choose(settings: dict[str, Any], budget_bytes: float, steps: int, models: int) -> dict[str, Any]:
    from experiments.process import xla_flags

    xla_flags.configure_xla(1, model=settings["model"], precision=settings["precision"])
    from experiments.costs.step.training_step import StepSettings
    from experiments.process.progress import stage

    try:
        return choose(
            StepSettings(**settings), budget_bytes, lambda step: process_bytes(step, steps, models), stage
        )._asdict()
    except UsageError as refused:
        return {"refused": str(refused)}


def bytes_beside_the_plan() -> int:
    """Return the bytes that a process holds beside its plan; 0 on an accelerator."""
    import jax

    return PROCESS_BYTES if jax.default_backend() == "cpu" else 0
