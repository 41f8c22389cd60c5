"""`w2v-jax bench memory`: memory and seconds of a training step, by method."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments.bench.memory import report
from experiments.bench.memory import rows as memory_rows
from experiments.costs import memory_budget
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.options.spelling import option_name
from experiments.report.writer import write_report
from w2v_jax import memory_methods
from w2v_jax.config import PRESETS, SAMPLE_RATE_HZ, OptimizerName


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchMemoryArguments:
    """Start a process for each method, let it idle and train a few steps, and read its memory from outside.

    example: w2v-jax bench memory --batch 8 --seconds 12 --method plain exact --out bench/memory
    """

    out: Path = Path("runs/memory")
    """Folder for memory.json, memory.md and memory.png."""
    model: str = "base"
    """Model preset."""
    batch: int = 8
    """Utterances in a batch."""
    seconds: float = 12.0
    """Length of each utterance, in seconds."""
    method: tuple[str, ...] = ("plain", "exact")
    """How gradients are computed: method names separated by commas; --list explains them. Each combination
    gets a row. exact combines all methods that save memory and leave the gradient as it is."""
    memory_budget: str | None = None
    """Memory for the process, such as 4GB or 800MB; a row is added for the cheapest exact combination that
    fits. Default: no such row."""
    optimizer: OptimizerName = "sgd"
    """Optimizer of a client. adamw keeps two arrays of the model's size, lion keeps one, adafactor keeps sums
    along axes, and sgd keeps nothing."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 rounds the operands of matrix products; everything else stays fp32."""
    steps: int = 3
    """Number of steps of each process."""
    repeats: int = 1
    """Number of processes of each row after the one that compiles. Processes of different rows take turns."""
    gradient_batch: int = 2
    """Number of utterances whose gradients are compared with the plain step's; 0 compares none."""
    gradient_seconds: float = 5.5
    """Length of the longest of these utterances, in seconds."""
    list: bool = False
    """List the methods, and measure nothing."""


def main(argv: list[str]) -> None:
    """Run the command."""
    if "--list" in argv:
        print(listing())
        return
    options = arguments.parse(BenchMemoryArguments, argv, "w2v-jax bench memory")
    check(options)
    options.out.mkdir(parents=True, exist_ok=True)
    shared = {
        name: getattr(options, name) for name in ("model", "batch", "seconds", "optimizer", "precision")
    }
    chosen = list(options.method)
    if options.memory_budget is not None:
        budget_bytes = memory_budget.parse(options.memory_budget)
        choice = memory_budget.choose_in_child(shared, budget_bytes)
        print(choice.describe(budget_bytes), flush=True)
        chosen = list(dict.fromkeys([*chosen, choice.method]))
    wanted = [{**shared, "method": method} for method in chosen]

    def gradient_check(settings: dict[str, Any]) -> dict[str, Any]:
        if not options.gradient_batch:
            return {}
        return memory_rows.gradient_error(
            settings["model"],
            settings["method"],
            settings["precision"],
            options.gradient_batch,
            options.gradient_seconds,
        )

    rows = list(
        memory_rows.rows(wanted, steps=options.steps, repeats=options.repeats, gradient_check=gradient_check)
    )
    made = memory_rows.provenance_of("bench memory", options.model, options.precision)
    result = {"rows": rows, "provenance": made}
    print(write_report(options.out, "memory", result, report.markdown, report.draw))
    print(f"written: {options.out / 'memory.json'}, memory.md, memory.png")


def check(options: BenchMemoryArguments) -> None:
    """Refuse options that cannot be measured, before anything is started.

    Raises:
        UsageError: an option is unknown or out of range, or this system is not Linux.
    """
    arguments.check_choice("--model", options.model, PRESETS)
    for name in ("batch", "seconds", "steps", "repeats", "gradient_seconds"):
        if not 0 < (value := getattr(options, name)) < 1e6:
            raise UsageError(f"{option_name(name)} must be positive, and below a million, got {value}")
    if options.gradient_batch < 0:
        raise UsageError(f"--gradient-batch must not be negative, got {options.gradient_batch}")
    config = PRESETS[options.model]
    for name in ("seconds", "gradient_seconds"):
        if config.num_frames(round(getattr(options, name) * SAMPLE_RATE_HZ)) < config.mask_span:
            raise UsageError(f"{option_name(name)} {getattr(options, name):g} is too short for a mask")
    if options.memory_budget is not None:
        memory_budget.parse(options.memory_budget)
    for method in options.method:
        with arguments.blaming("--method"):
            cut = memory_methods.configured(config, method).truncate_seconds
        if cut is not None and config.num_frames(round(cut * SAMPLE_RATE_HZ)) < config.mask_span:
            raise UsageError(f"--method {method} cuts clips to a length that is too short for a mask")
        if memory_methods.is_layerwise(method) and options.optimizer != "sgd":
            raise UsageError("--method layerwise needs --optimizer sgd")
    if not Path("/proc/self/status").exists():
        raise UsageError("bench memory reads /proc/PID/status, which only Linux has: run it on Linux")


def listing() -> str:
    """List the methods with what they do."""
    lines = [
        f"  {name:<20}{' + '.join(parts) or 'no method at all'}"
        for name, parts in memory_methods.GROUPS.items()
    ]
    lines += [f"  {name:<20}{method.about}" for name, method in memory_methods.METHODS.items()]
    return "\n".join(["methods, to be combined by commas:", *lines])
