"""`w2v-jax plans`: compilers' memory plans of a training step for boards that are not here."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from experiments import paper
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance
from experiments.report.figures import PAGE_INCHES, SMALL_POINTS, message, picture
from experiments.report.footer import footer
from experiments.report.tables import table
from experiments.report.units import GIGA, gigabytes, percent
from experiments.report.writer import write_report

SETTINGS = ((4, 5.5), (8, 12.0))  # batch, seconds
VARIANTS: tuple[tuple[Literal["fp32", "bf16"], str], ...] = (
    ("fp32", "plain"),
    ("bf16", "plain"),
    ("fp32", "remat"),
    ("bf16", "remat"),
    ("fp32", "exact"),
    ("bf16", "exact"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlansArguments:
    """Compile a step at the paper's two settings for boards, beside the memory that the paper printed.

    example: w2v-jax plans --target xavier-agx orin-agx --out reports/plans
    """

    out: Path
    """Folder for plans.json, plans.md and plans.png."""
    targets: tuple[str, ...] = ("xavier-agx", "orin-agx")
    """Devices to compile for: those of profile --target. One for each compute capability is enough."""
    model: str = "base"
    """Model preset."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(PlansArguments, argv, "w2v-jax plans")
    from profiling import targets
    from w2v_jax.config import PRESETS

    arguments.check_choice("--model", options.model, PRESETS)
    for target in options.targets:
        arguments.check_choice("--target", target, targets.TARGETS)
        if (absent := targets.missing(target)) is not None:
            raise UsageError(absent)
    targets.prepare_environment()
    options.out.mkdir(parents=True, exist_ok=True)
    xla_flags.configure_xla(1)
    result = {
        "model": options.model,
        "options": {target: targets.compiler_options(target) for target in options.targets},
        "descriptions": {target: targets.describe(target) for target in options.targets},
        "rows": list(plan_rows(options)),
        "provenance": record_provenance("plans"),
    }
    print(write_report(options.out, "plans", result, markdown, draw))
    print(f"written: {options.out / 'plans.json'}, plans.md, plans.png")


def plan_rows(options: PlansArguments) -> Iterator[dict[str, Any]]:
    """Compile each target, setting and variant, and yield a row of plans.json for each."""
    from experiments.costs.step.training_step import StepSettings
    from experiments.process.progress import stage
    from profiling import targets
    from profiling.devices import DEVICES

    for target in options.targets:
        for batch, seconds in SETTINGS:
            for precision, method in VARIANTS:
                settings = StepSettings(
                    model=options.model,
                    batch=batch,
                    seconds=seconds,
                    precision=precision,
                    method=method,
                    optimizer="sgd",
                )
                started = time.perf_counter()
                plan, refused = None, None
                try:
                    plan = plan_of(settings, target)
                except targets.TargetError as error:
                    refused = str(error)  # the other plans are still worth having
                taken = time.perf_counter() - started
                found = refused if plan is None else f"{gigabytes(plan['total'])} GB"
                stage(f"{target}: {settings.describe()}: {found}, {taken:.0f} s")
                cuda = DEVICES[target].cuda
                yield {
                    "target": target,
                    "compute_capability": cuda and ".".join(map(str, cuda.compute_capability)),
                    "batch": batch,
                    "seconds": seconds,
                    "precision": precision,
                    "method": method,
                    "optimizer": settings.optimizer,
                    "plan": plan,
                    "refused": refused,
                    "compile_seconds": taken,
                    "printed_bytes": paper.training_bytes(options.model, "fp32", batch, seconds),
                }


def plan_of(settings: Any, target: str) -> dict[str, int]:
    """Compile one step for a target and return the compiler's plan, in bytes.

    Args:
        settings: StepSettings.
        target: one of profiling.targets.TARGETS.

    Raises:
        profiling.targets.TargetError: the compiler is not installed, or refuses the program.
    """
    from experiments.costs.step import training_step
    from profiling import targets
    from profiling.xla import memory_plan
    from w2v_jax.platforms import lowering_for

    with lowering_for(targets.platform_of(target)):
        step = training_step.build(settings)
        lowered = targets.lower_for(target, step.function, step.arguments, donate=(0,))
    plan = memory_plan(targets.compile_lowered(target, lowered))
    return dataclasses.asdict(plan) | {"total": plan.total}


def _find(result: dict[str, Any], batch: int, seconds: float) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Find the rows of one setting by target, precision and method."""
    return {
        (row["target"], row["precision"], row["method"]): row
        for row in result["rows"]
        if (row["batch"], row["seconds"]) == (batch, seconds)
    }


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    lines = []
    for target in dict.fromkeys(row["target"] for row in result["rows"]):
        for batch, seconds in SETTINGS:
            found = _find(result, batch, seconds)
            rows = [found[target, *variant] for variant in VARIANTS]
            capability = rows[0]["compute_capability"]
            lines.append(
                (
                    f"{target} (sm_{capability.replace('.', '')})" if capability else target,
                    f"{batch} x {seconds:g} s",
                    *(gigabytes(row["plan"]["total"]) if row["plan"] else "refused" for row in rows),
                    gigabytes(rows[0]["printed_bytes"], unknown="not printed"),
                )
            )
    variants = [f"{precision}, {method}" for precision, method in VARIANTS]
    options = {name: value for row in result["options"].values() for name, value in row.items()}
    parts = [
        f"# Memory plans: {result['model']}, SGD, one training step",
        "The table shows the memory that the compiler plans for the program, in GB: parameters, batch and "
        "all temporaries. It is not measured: the driver and the context take memory beside it. The paper's "
        "figures are those of an eager framework in fp32.",
        table(("target", "batch", *variants, "the paper"), lines),
        "remat computes each CNN and transformer layer again in the backward pass. Volta (sm_72) has no bf16 "
        "arithmetic, so the compiler widens bf16 to fp32 there.",
        "![plans](plans.png)",
        f"XLA options: {options}. plans.json holds the descriptions of the targets.",
        footer(result["provenance"]),
    ]
    return "\n\n".join(parts) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw bars by setting, a group for each target."""
    names = list(dict.fromkeys(row["target"] for row in result["rows"]))
    bars = [(name, *variant) for name in names for variant in VARIANTS]
    size = (PAGE_INCHES, 1.6 + 0.28 * len(bars))
    with picture(path, columns=len(SETTINGS), figsize=size, sharey=True) as axes:
        for axis, (batch, seconds) in zip(axes, SETTINGS, strict=True):
            found = _find(result, batch, seconds)
            plans = [found[bar]["plan"] for bar in bars]
            drawn = axis.barh(
                range(len(bars)),
                [plan["total"] / GIGA if plan else 0.0 for plan in plans],
                color=["tab:blue" if precision == "fp32" else "tab:orange" for _, precision, _ in bars],
            )
            labels = [gigabytes(plan["total"]) if plan else "refused" for plan in plans]
            axis.bar_label(drawn, labels, fontsize=SMALL_POINTS, padding=2)
            axis.margins(x=0.15)
            printed = paper.training_bytes(result["model"], "fp32", batch, seconds)
            if printed:
                axis.axvline(printed / GIGA, color="red", linestyle=":")
            axis.set(title=f"{result['model']}, batch {batch} x {seconds:g} s", xlabel="compiler's plan, GB")
            axis.grid(alpha=0.3, axis="x")
        labels = [f"{name}: {method}, {precision}" for name, precision, method in bars]
        axes[0].set_yticks(range(len(bars)), labels, fontsize=SMALL_POINTS)
        axes[0].invert_yaxis()
        message(
            axes[0],
            f"{_least(result)}A bar is one plan of the compiler, not a measurement. Blue: fp32; orange: "
            "bf16. Red dotted line, where the paper prints one: its bytes in fp32.",
        )


def _least(result: dict[str, Any]) -> str:
    """Compare exact with plain in fp32, over all targets and settings; empty where a plan is refused."""
    ratios = []
    for batch, seconds in SETTINGS:
        found = _find(result, batch, seconds)
        for target, precision, method in found:
            if (precision, method) == ("fp32", "exact"):
                own, plain = (found[target, "fp32", name]["plan"] for name in ("exact", "plain"))
                if own and plain:
                    ratios.append(own["total"] / plain["total"])
    if not ratios:
        return ""
    return f"In fp32, exact takes {percent(min(ratios))} to {percent(max(ratios))} of the memory of plain. "
