"""`w2v-jax bench memory`: what training takes of a machine's memory, and of its time, by method."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments.bench.memory import rows as memory_rows
from experiments.costs import memory_budget
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process.files import replace_file, write_json
from w2v_jax import memory_methods
from w2v_jax.config import PRESETS, SAMPLE_RATE_HZ, OptimizerName


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchMemoryArguments:
    """Start a process per method that idles, trains a few steps and ends, and read its memory from outside.

    example: w2v-jax bench memory --model base --batch 8 --seconds 12 --method plain exact --out bench/memory
    """

    out: Path = Path("runs/memory")
    """Folder for memory.json, memory.md and memory.png."""
    model: str = "base"
    """Preset."""
    batch: int = 8
    """Utterances of a step."""
    seconds: float = 12.0
    """Length of each."""
    method: tuple[str, ...] = ("plain", "exact")
    """Combinations of methods, a row each: NAME[,NAME...]. `w2v-jax bench memory --list` says what they do."""
    memory_budget: str | None = None
    """A row more: the exact combination with the fewest operations that fits, as 4GB or 800MB, is picked."""
    optimizer: OptimizerName = "sgd"
    """adamw keeps two arrays of the model's size, lion one, adafactor sums along axes, sgd none."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the matrix products' operands."""
    steps: int = 3
    """Steps of a process."""
    repeats: int = 1
    """Processes of each row after the one that compiles; they take turns."""
    gradient_batch: int = 2
    """Utterances of the gradients that are compared with the plain step's; 0 compares none."""
    gradient_seconds: float = 5.5
    """Length of the longest of them."""
    list: bool = False
    """Only say which methods there are."""


ON_DEVICE = (
    "Each row is a process of its own that starts its backend, makes its parameters and trains; memory is the "
    "accelerator's, the most that jax's allocator gave out. Compiling: the same of the first process, which "
    "compiled and tried out kernels; the others were served by the cache of compilations. Plan: the compiler's, "
    "of the step's arguments, outputs and temporaries."
)


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
    write_json(options.out / "memory.json", result)
    replace_file(options.out / "memory.md", markdown(result))
    draw(rows, options.out / "memory.png")
    print(markdown(result))
    print(f"written: {options.out / 'memory.json'}, memory.md, memory.png")


def check(options: BenchMemoryArguments) -> None:
    """Find mistakes before anything is started.

    Raises:
        UsageError: in one line.
    """
    arguments.check_choice("--model", options.model, PRESETS)
    for name in ("batch", "seconds", "steps", "repeats", "gradient_seconds"):
        if not 0 < getattr(options, name) < 1e6:
            raise UsageError(
                f"--{name.replace('_', '-')} must be positive, and below a million, got {getattr(options, name)}"
            )
    if options.gradient_batch < 0:
        raise UsageError(f"--gradient-batch must not be negative, got {options.gradient_batch}")
    config = PRESETS[options.model]
    for name in ("seconds", "gradient_seconds"):
        if config.num_frames(round(getattr(options, name) * SAMPLE_RATE_HZ)) < config.mask_span:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(options, name):g} is too short for a mask")
    if options.memory_budget is not None:
        memory_budget.parse(options.memory_budget)
    for method in options.method:
        with arguments.blaming("--method"):
            cut = memory_methods.configured(config, method).truncate_seconds
        if cut is not None and config.num_frames(round(cut * SAMPLE_RATE_HZ)) < config.mask_span:
            raise UsageError(f"--method {method} leaves clips that are too short for a mask")
        if memory_methods.is_layerwise(method) and options.optimizer != "sgd":
            raise UsageError("--method layerwise needs --optimizer sgd")
    if not Path("/proc/self/status").exists():
        raise UsageError("bench memory reads a process's memory as Linux tells it; this is another system")


def listing() -> str:
    """Methods and what they do."""
    lines = [
        f"  {name:<20}{' + '.join(parts) or 'no method at all'}"
        for name, parts in memory_methods.GROUPS.items()
    ]
    lines += [f"  {name:<20}{method.about}" for name, method in memory_methods.METHODS.items()]
    return "\n".join(["methods, to be combined by commas:", *lines])


def gigabytes(value: float | None) -> str:
    """With two places; a dash for what is not known."""
    return "-" if value is None else f"{value / 1e9:.2f}"


def markdown(result: dict[str, Any]) -> str:
    """The table for readers."""
    rows, made = result["rows"], result["provenance"]
    plain = next((row["step_seconds"] for row in rows if row["method"] == memory_methods.PLAIN), None)
    first = rows[0]
    lines = [
        f"# Memory of training: {first['model']}, batch {first['batch']} x {first['seconds']:g} s, {first['precision']}, {first['optimizer']}",
        "",
        ON_DEVICE
        if any(row["memory"] == "device" for row in rows)
        else "Each row is a process of its own that idles (everything imported, the backend started), makes its parameters and trains; its peak is read from outside when it has ended. Above idle: peak less what it held idle. Compiling: the same of the first process, which compiled; the others were served by the cache of compilations. Plan: the compiler's, of the step's arguments, outputs and temporaries. Plain runs as the other commands do, with huge pages where the kernel has them; the others ask the C library to give freed memory back at once (`pretrain --method` does too).",
        "",
        "| method | above idle, GB | peak, GB | idle, GB | compiling, GB above idle | plan, GB | seconds a step | over plain | gradient error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seconds = row["step_seconds"]
        took = "not run" if seconds is None else f"{seconds:.2f}"
        over = "-" if seconds is None or plain is None else f"{seconds / plain:.2f}"
        error = "-" if row["gradient_error"] is None else f"{row['gradient_error']:.1e}"
        cells = (
            row[n] for n in ("above_idle_bytes", "peak_bytes", "idle_bytes", "compiling_above_idle_bytes")
        )
        lines.append(
            f"| {row['method']} | {' | '.join(gigabytes(cell) for cell in cells)} | {gigabytes(row['plan_bytes'])} | {took} | {over} | {error} |"
        )
    check = next((row for row in rows if row["gradient_error"] is not None), None)
    lines += ["", "![memory against time](memory.png)", ""]
    if check is not None:
        lines += [
            f"Gradient error: distance from the plain step's gradients over their norm, {check['gradient_batch']} utterances of up to {check['gradient_seconds']:g} s and unequal lengths.",
            "",
        ]
    lines.append(
        f"`{made['command']}`, commit {made['commit']}, {made['cores']} cores, {made['device']}, `{made['xla_flags']}`, "
        + ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    )
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Memory against time, a point for each method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 6), layout="constrained")
    scatter(axis, [row for row in rows if row["step_seconds"] is not None])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def scatter(axis: Any, rows: list[dict[str, Any]], title: str | None = None) -> None:
    """Methods by memory and time; inexact ones hollow."""
    for place, row in enumerate(rows):
        exact = memory_methods.is_exact(row["method"])
        axis.scatter(
            row["step_seconds"],
            row["above_idle_bytes"] / 1e9,
            facecolors=f"C{place % 10}" if exact else "none",
            edgecolors=f"C{place % 10}",
            marker="os^D"[place // 10 % 4],
            s=60,
            zorder=3,
            label=f"{row['method']}, {row['optimizer']}" + ("" if exact else " (inexact)"),
        )
    axis.set(xlabel="seconds a step", ylabel="GB above idle")
    if title is not None:
        axis.set_title(title)
    axis.set_ylim(0, None)
    axis.set_xlim(0, None)
    axis.grid(alpha=0.3)
    # Below: there is no corner that points leave free for so many names.
    axis.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.12))
