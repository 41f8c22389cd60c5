"""`w2v-jax plans`: compilers' memory plans of a training step for boards that are not here."""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

from experiments import paper
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.files import replace_file, write_json
from experiments.process.provenance import record_provenance

SETTINGS = ((4, 5.5), (8, 12.0))
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

    example: w2v-jax plans --targets xavier-agx orin-agx --out reports/plans
    """

    out: Path
    """Folder for plans.json, plans.md and plans.png."""
    targets: tuple[str, ...] = ("xavier-agx", "orin-agx")
    """Devices to compile for; see profile --target. One for each compute capability is enough."""
    model: str = "base"
    """Preset."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(PlansArguments, argv, "w2v-jax plans")
    from profiling import targets
    from w2v_jax.config import PRESETS

    arguments.check_choice("--model", options.model, PRESETS)
    for target in options.targets:
        arguments.check_choice("--targets", target, targets.TARGETS)
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
    write_json(options.out / "plans.json", result)
    replace_file(options.out / "plans.md", markdown(result))
    draw(result, options.out / "plans.png")
    print(markdown(result))
    print(f"written: {options.out / 'plans.json'}, plans.md, plans.png")


def plan_rows(options: PlansArguments) -> Any:
    """A row for each target, setting and variant."""
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
                    refused = str(error)  # the others are worth having all the same
                taken = time.perf_counter() - started
                said = refused if plan is None else f"{plan['total'] / 1e9:.2f} GB"
                stage(f"{target}: {settings.describe()}: {said}, {taken:.0f} s")
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
    """The compiler's plan of one step for a target, in bytes.

    Raises:
        profiling.targets.TargetError: the compiler is not here, or refuses.
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


def markdown(result: dict[str, Any]) -> str:
    """The table for readers."""
    lines = [
        f"# Memory plans: {result['model']}, SGD, one training step",
        "",
        "What the compiler plans for the program: parameters, batch and all temporaries. No measurement: driver",
        "and context come on top. The paper's figures are an eager framework's, in fp32.",
        "",
        "| target | batch | " + " | ".join(f"{p}, {m}" for p, m in VARIANTS) + " | the paper |",
        "|---|---|" + "---|" * (len(VARIANTS) + 1),
    ]
    for target in dict.fromkeys(row["target"] for row in result["rows"]):
        for batch, seconds in SETTINGS:
            rows = {
                (row["precision"], row["method"]): row
                for row in result["rows"]
                if (row["target"], row["batch"], row["seconds"]) == (target, batch, seconds)
            }
            cells = [
                f"{rows[variant]['plan']['total'] / 1e9:.2f}" if rows[variant]["plan"] else "refused"
                for variant in VARIANTS
            ]
            row = rows[VARIANTS[0]]
            capability = (
                f" (sm_{row['compute_capability'].replace('.', '')})" if row["compute_capability"] else ""
            )
            printed = f"{row['printed_bytes'] / 1e9:.2f}" if row["printed_bytes"] else "not printed"
            lines.append(
                f"| {target}{capability} | {batch} x {seconds:g} s | {' | '.join(cells)} | {printed} |"
            )
    versions = result["provenance"]["versions"]
    options = {name: value for row in result["options"].values() for name, value in row.items()}
    lines += [
        "",
        "GB. remat: each CNN and transformer layer again in the backward pass. Volta (sm_72) has no bf16 arithmetic:",
        "the compiler widens it there.",
        "",
        "![plans](plans.png)",
        "",
        f"jax {versions['jax']}, jaxlib {versions['jaxlib']}, options {options}; target descriptions in plans.json.",
        f"`{result['provenance']['command']}`, commit {result['provenance']['commit']}",
    ]
    return "\n".join(lines) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Bars by setting, one group a target."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SETTINGS), figsize=(13, 4.5), layout="constrained")
    names = list(dict.fromkeys(row["target"] for row in result["rows"]))
    for axis, (batch, seconds) in zip(axes, SETTINGS, strict=True):
        for place, (precision, method) in enumerate(VARIANTS):
            rows = {
                row["target"]: row
                for row in result["rows"]
                if (row["batch"], row["seconds"], row["precision"], row["method"])
                == (batch, seconds, precision, method)
            }
            at = [index + (place - 2.5) * 0.15 for index in range(len(names))]
            bars = axis.bar(
                at,
                [rows[name]["plan"]["total"] / 1e9 if rows[name]["plan"] else 0.0 for name in names],
                0.15,
                label=f"{precision}, {method}",
            )
            axis.bar_label(bars, fmt="%.2f", fontsize=6)
        printed = paper.training_bytes(result["model"], "fp32", batch, seconds)
        if printed:
            axis.axhline(printed / 1e9, color="red", linestyle=":", label=f"the paper: {printed / 1e9:.2f}")
        axis.set_xticks(range(len(names)), names)
        axis.set(title=f"{result['model']}, batch {batch} x {seconds:g} s", ylabel="GB, compiler's plan")
        axis.set_ylim(0, axis.get_ylim()[1] * 1.3)  # room for the legend
        axis.legend(fontsize=8, ncols=3, loc="upper center")
        axis.grid(alpha=0.3, axis="y")
    figure.savefig(path, dpi=110)
    plt.close(figure)
