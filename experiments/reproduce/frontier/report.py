"""The frontier's report: tables, and pictures of memory against time, batch and length."""

from pathlib import Path
from typing import Any

from experiments import paper
from experiments.bench.memory.report import scatter
from experiments.report.units import gigabytes
from experiments.reproduce.frontier import sections as frontier
from w2v_jax import memory_methods

Result = dict[str, Any]


def markdown(result: Result) -> str:
    """The report."""
    made, sections = result["provenance"], result["sections"]
    lines = [
        "# Memory against time",
        "",
        "Every row is a process of its own that idles, makes its parameters and trains; memory is its peak above what it held idle (all imported, the backend started), read from outside when it has ended. Compiling: the first process, which compiled; the others were served by the cache of compilations. The plan is the compiler's. Plain runs as the other commands do, with huge pages where the kernel has them; the others ask the C library to give freed memory back at once (`pretrain --method` does too). All methods give the plain step's gradients but for those called inexact. Over plain: of the plain step with the same optimizer where it was measured, else with SGD.",
        "",
    ]
    if "desired" in sections:
        lines += ["## The setting that the paper desires: batch 8 x 12 s", "", *_desired(sections["desired"])]
    if "oom" in sections:
        lines += ["## The cells of Table 2 that ran out of memory", "", *_cells(result["cells"])]
    if "growth" in sections:
        lines += ["## What grows with the batch and the length", "", *_growth(sections["growth"])]
    if "frontier" in sections:
        lines += ["## All methods: batch 4 x 5.5 s", "", *_table(sections["frontier"]), ""]
        lines += ["![memory against time](frontier.png)", ""]
    lines.append(
        f"`{made['command']}`, commit {made['commit']}, {made['cores']} cores, {made['device']}, `{made['xla_flags']}`, "
        + ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    )
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| model | method | optimizer | GB above idle | compiling, GB | plan, GB | seconds a step | over plain | gradient error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        alike = {"model": row["model"], "method": memory_methods.PLAIN}
        plain = frontier.find(rows, **alike, optimizer=row["optimizer"]) or frontier.find(rows, **alike) or {}
        seconds, reference = row["step_seconds"], plain.get("step_seconds")
        took = "not run" if seconds is None else f"{seconds:.2f}"
        over = "-" if seconds is None or reference is None else f"{seconds / reference:.2f}"
        error = "-" if row["gradient_error"] is None else f"{row['gradient_error']:.1e}"
        note = "" if memory_methods.is_exact(row["method"]) else " (inexact)"
        lines.append(
            f"| {row['model']} | {row['method']}{note} | {row['optimizer']} | {gigabytes(row['above_idle_bytes'])} | {gigabytes(row['compiling_above_idle_bytes'])} | {gigabytes(row['plan_bytes'])} | {took} | {over} | {error} |"
        )
    return lines


def _desired(rows: list[dict[str, Any]]) -> list[str]:
    printed = paper.training_bytes("base", "fp32", 8, 12.0)
    assert printed is not None
    lines = [*_table(rows), ""]
    for optimizer in ("sgd", "adamw"):
        row = frontier.find(rows, model="base", method="exact", optimizer=optimizer)
        if row is not None and row["above_idle_bytes"] is not None:
            lines.append(
                f"The paper's base takes {gigabytes(printed)} GB there (an eager framework, GPU); exact with {optimizer} takes {row['above_idle_bytes'] / printed:.0%} of that here."
            )
    return [*lines, ""]


def _cells(cells: list[dict[str, Any]]) -> list[str]:
    lines = [
        "With AdamW. Fits: within what the device's class leaves to a training program (three quarters). Measured: the whole process on this machine, what it held idle included; mixed is bf16 there.",
        "",
        "| device | step | usable, GB | plan, plain | fits | plan, exact | fits | measured, exact | fits |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        precision = "mixed" if cell["precision"] == paper.MIXED else cell["precision"]
        lines.append(
            f"| {cell['title']} | {cell['model']}, batch {cell['batch']}, {precision} | {gigabytes(cell['usable_bytes'])} | {gigabytes(cell['plain_plan_bytes'])} | {cell['plain_verdict']} | {gigabytes(cell['exact_plan_bytes'])} | {cell['exact_verdict']} | {gigabytes(cell['measured_bytes'])} | {cell['measured_verdict']} |"
        )
    now = sum(cell["measured_verdict"] == "fits" for cell in cells)
    planned = sum(cell["exact_verdict"] == "fits" for cell in cells)
    return [
        *lines,
        "",
        f"Of {len(cells)} cells, {planned} fit by the compiler's plan and {now} as measured. Whether they are fast enough is another question: see `w2v-jax feasibility`.",
        "",
    ]


def growth_of(rows: list[dict[str, Any]], of: str = "above_idle_bytes") -> dict[str, float]:
    """Peak at batch 64 over that at batch 4, and activations at 30 s over those at 15 s, by method.

    Args:
        of: above_idle_bytes or plan_bytes.
    """
    of_batch = [frontier.find(rows, method="exact", batch=batch) for batch in (4, 64)]
    found = {}
    if all(row is not None and row[of] for row in of_batch):
        small, large = (row[of] for row in of_batch if row is not None)
        found["batch"] = large / small
    for method in ("plain", "exact"):
        of_length = [frontier.find(rows, method=method, batch=1, seconds=seconds) for seconds in (15.0, 30.0)]
        held = [frontier.activations_bytes(row, of) for row in of_length if row is not None]
        known = [size for size in held if size is not None]
        if len(known) == 2:
            found[method] = known[1] / known[0]
    return found


def _growth(rows: list[dict[str, Any]]) -> list[str]:
    measured, planned = growth_of(rows), growth_of(rows, "plan_bytes")
    lines = [
        "Activations: what a process, or the plan, holds beside parameters, gradients and the optimizer's state. A plan counts the batch itself; what a process has beside the plan (its program, libraries) does not grow.",
        "",
        "| method | batch | seconds | GB above idle | activations, GB | plan, GB | activations by plan, GB |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['method']} | {row['batch']} | {row['seconds']:g} | {gigabytes(row['above_idle_bytes'])} | {gigabytes(frontier.activations_bytes(row))} | {gigabytes(row['plan_bytes'])} | {gigabytes(frontier.activations_bytes(row, 'plan_bytes'))} |"
        for row in rows
    ]
    lines.append("")
    if "batch" in measured:
        lines.append(
            f"Exact, from batch 4 to batch 64: the peak is {measured['batch']:.3f} times as large, the plan {planned['batch']:.3f} times."
        )
    for method in ("plain", "exact"):
        if method in measured:
            lines.append(
                f"{method}, from 15 s to 30 s: activations are {measured[method]:.2f} times as large, by the plan {planned[method]:.2f} times."
            )
    return [*lines, "", "![growth](growth.png)", ""]


def draw(result: Result, folder: Path) -> list[str]:
    """All pictures; their names."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    written, sections = [], result["sections"]
    if "frontier" in sections:
        figure, axes = plt.subplots(1, 2, figsize=(15, 8), layout="constrained")
        for axis, model in zip(axes, ("base", "large"), strict=True):
            rows = [row for row in sections["frontier"] if row["model"] == model and row["step_seconds"]]
            scatter(axis, rows, f"{model}, batch 4 x 5.5 s, fp32")
        figure.savefig(folder / "frontier.png", dpi=110)
        plt.close(figure)
        written.append("frontier.png")
    if "growth" in sections:
        _draw_growth(sections["growth"], folder / "growth.png")
        written.append("growth.png")
    return written


def _draw_growth(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    batches = [row for row in rows if row["seconds"] == paper.TABLE_2_SECONDS and row["above_idle_bytes"]]
    left.plot(
        [row["batch"] for row in batches],
        [row["above_idle_bytes"] / 1e9 for row in batches],
        "o-",
        label="peak",
    )
    if batches:
        model = 2 * batches[0]["parameter_bytes"] / 1e9
        left.axhline(model, color="gray", linestyle=":", label="parameters and gradients")
        left.axhline(1.1 * batches[0]["above_idle_bytes"] / 1e9, color="red", linewidth=1, label="+ 10 %")
    left.set(xlabel="batch", ylabel="GB above idle", title="exact, base, 5.5 s: memory against batch")
    left.set_ylim(0, None)
    for method in ("plain", "exact"):
        held = [
            (row["seconds"], frontier.activations_bytes(row))
            for row in rows
            if row["method"] == method and row["batch"] == 1
        ]
        points = [(seconds, size / 1e9) for seconds, size in held if size is not None]
        if points:
            (line,) = right.plot(*zip(*points, strict=True), "o-", label=method)
            planned = [
                (row["seconds"], (frontier.activations_bytes(row, "plan_bytes") or 0) / 1e9)
                for row in rows
                if row["method"] == method and row["batch"] == 1
            ]
            right.plot(*zip(*planned, strict=True), "o:", color=line.get_color(), label=f"{method}, by plan")
            reference = dict(planned).get(15.0)
            if method == "exact" and reference is not None:
                right.hlines(
                    1.8 * reference, 15, 30, "red", linewidth=1, label="1.8 times exact's plan at 15 s"
                )
    right.set(xlabel="seconds", ylabel="GB of activations", title="base, batch 1: activations against length")
    right.set_ylim(0, None)
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
