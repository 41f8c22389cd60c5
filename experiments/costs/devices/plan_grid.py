"""`w2v-jax plans grid`: compilers' memory plans over lengths and batches, kept for the feasibility table.

Compiling one plan takes ten seconds or more. So all plans are compiled once and kept in plan_grid.json beside
this file; experiments/costs/devices/plan_surface.py reads them. Importing this module starts no jax.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.files import read_json, write_json
from experiments.process.provenance import record_provenance

KEPT = Path(__file__).with_name("plan_grid.json")
METHODS = ("plain", "remat", "exact")  # names of w2v_jax.memory_methods
MODELS = ("base", "large")
OPTIMIZER: Literal["adamw"] = "adamw"
# Batch and seconds: the paper's settings, and enough others to fit a quadratic in the length and to check it.
POINTS = ((1, 5.5), (4, 5.5), (4, 2.0), (2, 10.0), (1, 15.0), (8, 12.0))
# One target for each kind of compiler. Volta has no bf16; the paper's mixed precision is fp16 there.
PRECISIONS: dict[str, tuple[Literal["fp32", "bf16", "fp16"], ...]] = {
    "cpu": ("fp32",),
    "xavier-agx": ("fp32", "fp16"),
    "orin-agx": ("fp32", "bf16"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridArguments:
    """Compile the plans that the feasibility table reads (half an hour or more).

    The command can be interrupted and started again.

    example: w2v-jax plans grid --target cpu xavier-agx orin-agx --out plan_grid.json
    """

    out: Path
    """JSON file; its plans are kept if they were made by the same commit and the same jaxlib."""
    targets: tuple[str, ...] = tuple(PRECISIONS)
    """Devices to compile for: cpu, or those of profile --target."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(GridArguments, argv, "w2v-jax plans grid")
    from profiling import targets

    for target in options.targets:
        arguments.check_choice("--target", target, PRECISIONS)
        if target != "cpu" and (absent := targets.missing(target)) is not None:
            raise UsageError(absent)
    targets.prepare_environment()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    xla_flags.configure_xla(1, model=MODELS[0], precision="fp32")  # as training does; in fp32 on a CPU
    from experiments.process.progress import stage

    provenance = record_provenance("plans grid")
    kept = _kept(options.out, provenance)
    wanted = list(settings_of(options.targets))
    for number, (target, settings) in enumerate(wanted, 1):
        if any(_is(row, target, settings) for row in kept):
            continue
        started = time.perf_counter()
        total = plan_bytes(target, settings)
        taken = time.perf_counter() - started
        stage(f"{number}/{len(wanted)} {target}: {settings.describe()}: {total / 1e9:.2f} GB, {taken:.0f} s")
        kept.append(
            {"target": target}
            | dataclasses.asdict(settings)
            | {"bytes": total, "compile_seconds": taken, "commit": provenance["commit"]}
        )
        write_json(options.out, {"rows": kept, "provenance": provenance})
    print(f"written: {options.out}, {len(kept)} plans")


def settings_of(targets: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield (target, StepSettings) for the whole grid, the paper's own setting first."""
    from experiments.costs.step.training_step import StepSettings

    for (batch, seconds), method, target in itertools.product(POINTS, METHODS, targets):
        for model in MODELS:
            for precision in PRECISIONS[target]:
                yield (
                    target,
                    StepSettings(
                        model=model,
                        batch=batch,
                        seconds=seconds,
                        precision=precision,
                        method=method,
                        optimizer=OPTIMIZER,
                    ),
                )


def plan_bytes(target: str, settings: Any) -> int:
    """Compile a step and return the total of its plan in bytes.

    Args:
        target: a device, or "cpu" for this process's backend.
        settings: StepSettings.
    """
    from experiments.costs.devices import plans
    from experiments.costs.step import training_step
    from profiling.xla import memory_plan

    if target == "cpu":
        return memory_plan(training_step.build(settings).compile()).total
    return plans.plan_of(settings, target)["total"]


def _kept(path: Path, provenance: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the rows of a file that the same code and the same compiler wrote; drop all others."""
    if not path.exists():
        return []
    found = read_json(path)
    same = found["provenance"]["versions"]["jaxlib"] == provenance["versions"]["jaxlib"]
    return [row for row in found["rows"] if same and row["commit"] == provenance["commit"]]


def _is(row: dict[str, Any], target: str, settings: Any) -> bool:
    """Tell whether a row is the plan of these settings for this target."""
    return row["target"] == target and all(row[k] == v for k, v in dataclasses.asdict(settings).items())
