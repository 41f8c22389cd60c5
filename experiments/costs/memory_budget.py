"""`--memory-budget`: the exact combination of methods with the fewest operations whose memory fits."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from experiments.options.errors import UsageError
from experiments.process.child_process import in_child
from w2v_jax import memory_methods

# What a process on a CPU holds beside a step's plan: libraries, the program, and scratch of its products.
# Peak less plan on two cores was 0.41 to 0.46 GB for exact, base and large at batch 8 x 12 s (reproduce
# frontier). Plain with huge pages, which commands with a budget do without, was at 0.80.
PROCESS_BYTES = 500_000_000
UNITS = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_ROWS = "remat-attention,remat-similarity"
_LAYERS = f"encoder-blocks,remat-layers,remat-feed-forward,{_ROWS}"


class Choice(NamedTuple):
    """What was picked, and what it costs.

    Attributes:
        method: names of w2v_jax.memory_methods.
        needed_bytes: of the process.
        operations: of a step, over those of the plain step.
    """

    method: str
    needed_bytes: int
    operations: float

    def describe(self, budget_bytes: float) -> str:
        """In words."""
        return (
            f"memory budget {budget_bytes / 1e9:g} GB: method {self.method}, which takes "
            f"{self.needed_bytes / 1e9:.2f} GB and {self.operations:.2f} times the operations of plain"
        )


def parse(text: str) -> float:
    """Bytes of "4GB", "800MB" or "3.5GiB".

    Raises:
        UsageError: it is none of these.
    """
    parts = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", text)
    if parts is None or parts[2].upper() not in UNITS or float(parts[1]) <= 0:
        raise UsageError(f"--memory-budget takes a size such as 4GB, 800MB or 3.5GiB, got '{text}'")
    return float(parts[1]) * UNITS[parts[2].upper()]


def ladder(batch: int) -> Iterator[str]:
    """Exact combinations, none with more memory than those before it."""
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
    """The combination to train with.

    Args:
        settings: StepSettings; their method does not count.
        budget_bytes: of the process.
        needed: settings -> bytes of the process; by default the step's plan and `PROCESS_BYTES`.
        say: told of every combination that is compiled.

    Raises:
        UsageError: none fits; the message says what the leanest takes.
    """
    from experiments.costs.step import training_step
    from profiling import flops

    def priced(method: str) -> tuple[Any, float]:
        with_method = dataclasses.replace(settings, method=method)
        step = training_step.build(with_method)
        return with_method, float(flops.count(step.function, *step.arguments).total.flops)

    # Of as many operations the one with more memory is the faster: less is done twice.
    candidates = [(method, *priced(method)) for method in ladder(settings.batch)]
    plain = candidates[0][2]
    tried: list[tuple[str, int]] = []
    for method, with_method, operations in sorted(candidates, key=lambda held: held[2]):
        size = (needed or process_bytes)(with_method)
        say(f"{method}: {size / 1e9:.2f} GB")
        if size <= budget_bytes:
            return Choice(method, size, operations / plain)
        tried.append((method, size))
    leanest, size = min(tried, key=lambda held: held[1])
    raise UsageError(
        f"--memory-budget {budget_bytes / 1e9:g} GB is too little: the leanest exact method, {leanest}, "
        f"of those tried takes {size / 1e9:.2f} GB; give more, or less --batch, --seconds or state "
        "(--optimizer)"
    )


def process_bytes(settings: Any, steps: int = 1, models: int = 0) -> int:
    """What a process takes that trains so: the step's plan on this backend, and on CPU what is beside it.

    Args:
        settings: StepSettings.
        steps: that it does side by side.
        models: arrays of the model's size that it holds beside them.
    """
    from experiments.costs.step import training_step
    from profiling.xla import memory_plan

    step = training_step.build(settings)
    held = models * training_step.tree_bytes(step.parameters)
    return steps * memory_plan(step.compile()).total + held + beside()


def choose_in_child(settings: dict[str, Any], budget_bytes: float, steps: int = 1, models: int = 0) -> Choice:
    """`choose` in a process of its own, whose memory is gone afterwards.

    Args:
        settings: of StepSettings.
        budget_bytes: of the process.
        steps, models: as `process_bytes` takes them.

    Raises:
        UsageError: none fits.
    """
    found = in_child(_choose, settings, budget_bytes, steps, models)
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


def beside() -> int:
    """Bytes beside the plan: none of a GPU's."""
    import jax

    return PROCESS_BYTES if jax.default_backend() == "cpu" else 0
