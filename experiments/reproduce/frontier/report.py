"""Write frontier.md: tables of memory against time, Table 2's OOM cells, growth with batch and length."""

from typing import Any

from experiments import paper
from experiments.report.tables import table
from experiments.report.units import gigabytes, percent
from experiments.reproduce.frontier import sections as frontier
from w2v_jax import memory_methods

INTRODUCTION = (
    "Every row is a process of its own that idles, makes its parameters and trains. Its memory is the "
    "peak above what it held idle (all imported, the backend started), read from outside when it has "
    "ended. Compiling: the first process, which compiled; the cache of compilations served the others. "
    "The plan is the compiler's. Plain runs as the other commands do, with huge pages where the kernel "
    "has them; the others ask the C library to give freed memory back at once (`pretrain --method` does "
    "too). All methods give the plain step's gradients but for those called inexact. Over plain: seconds "
    "over those of the plain step with the same optimizer where it was measured, else with SGD."
)
Result = dict[str, Any]


def markdown(result: Result) -> str:
    """Write the report; sections that were not measured are left out."""
    made, sections = result["provenance"], result["sections"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    judged = f"; OOM cells judged again at commit {made['cells_commit']}" if "cells_commit" in made else ""
    parts = ["# Memory against time", INTRODUCTION]
    if "desired" in sections:
        parts += ["## The setting that the paper desires: batch 8 x 12 s", *_desired(sections["desired"])]
    if "oom" in sections:
        parts += ["## The cells of Table 2 that ran out of memory", *_cells(result["cells"])]
    if "growth" in sections:
        parts += ["## What grows with the batch and the length", *_growth(sections["growth"])]
    if "frontier" in sections:
        parts += ["## All methods: batch 4 x 5.5 s", _table(sections["frontier"])]
        parts.append("![memory against time](frontier.png)")
    parts.append(
        f"`{made['command']}`, commit {made['commit']}, {made['cores']} cores, {made['device']}, "
        f"`{made['xla_flags']}`, {versions}{judged}"
    )
    return "\n\n".join(parts) + "\n"


def _table(rows: list[dict[str, Any]]) -> str:
    """Show memory and time of every row, time also over the plain step's."""
    head = (
        "model",
        "method",
        "optimizer",
        "GB above idle",
        "compiling, GB",
        "plan, GB",
        "seconds a step",
        "over plain",
        "gradient error",
    )
    cells = []
    for row in rows:
        alike = {"model": row["model"], "method": memory_methods.PLAIN}
        plain = frontier.find(rows, **alike, optimizer=row["optimizer"]) or frontier.find(rows, **alike) or {}
        seconds, reference = row["step_seconds"], plain.get("step_seconds")
        error = row["gradient_error"]
        cells.append(
            (
                row["model"],
                row["method"] + ("" if memory_methods.is_exact(row["method"]) else " (inexact)"),
                row["optimizer"],
                gigabytes(row["above_idle_bytes"]),
                gigabytes(row["compiling_above_idle_bytes"]),
                gigabytes(row["plan_bytes"]),
                "not run" if seconds is None else f"{seconds:.2f}",
                None if seconds is None or reference is None else f"{seconds / reference:.2f}",
                None if error is None else f"{error:.1e}",
            )
        )
    return table(head, cells)


def _desired(rows: list[dict[str, Any]]) -> list[str]:
    """Show the desired setting, and set the exact method beside the paper's memory."""
    printed = paper.training_bytes("base", "fp32", 8, 12.0)
    assert printed is not None
    said = []
    for optimizer in ("sgd", "adamw"):
        row = frontier.find(rows, model="base", method="exact", optimizer=optimizer)
        if row is not None and row["above_idle_bytes"] is not None:
            said.append(
                f"The paper's base takes {gigabytes(printed)} GB there (an eager framework, GPU); exact with "
                f"{optimizer} takes {percent(row['above_idle_bytes'] / printed)} of that here."
            )
    return [_table(rows), "\n".join(said)] if said else [_table(rows)]


def _cells(cells: list[dict[str, Any]]) -> list[str]:
    """Show what the exact method makes of the cells that ran out of memory."""
    head = (
        "device",
        "step",
        "usable, GB",
        "plan, plain",
        "fits",
        "plan, exact",
        "fits",
        "measured, exact",
        "fits",
    )
    rows = []
    for cell in cells:
        precision = "mixed" if cell["precision"] == paper.MIXED else cell["precision"]
        verdicts = (
            value
            for kind in ("plain_plan", "exact_plan", "measured")
            for value in (
                gigabytes(cell[f"{kind}_bytes"]),
                cell[f"{kind.removesuffix('_plan')}_verdict"],
            )
        )
        step = f"{cell['model']}, batch {cell['batch']}, {precision}"
        rows.append((cell["title"], step, gigabytes(cell["usable_bytes"]), *verdicts))
    now = sum(cell["measured_verdict"] == "fits" for cell in cells)
    planned = sum(cell["exact_verdict"] == "fits" for cell in cells)
    return [
        "With AdamW. Fits: within what the device's class leaves to a training program (three quarters). "
        "Borderline: inside the plan's error. Measured: the whole process on this machine, with what it held "
        "idle; mixed is bf16 there.",
        table(head, rows),
        f"{planned} of {len(cells)} cells fit by the compiler's plan, and {now} as measured. Whether they "
        "are fast enough is another question: see `w2v-jax feasibility`.",
    ]


def growth_of(rows: list[dict[str, Any]], of: str = "above_idle_bytes") -> dict[str, float]:
    """Divide the peak at batch 64 by that at batch 4, and activations at 30 s by those at 15 s, by method.

    Args:
        rows: the rows of the section `growth`.
        of: above_idle_bytes or plan_bytes.

    Returns:
        `batch`, `plain` and `exact`, those that were measured.
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
    """Show peaks and activations by method, batch and length, and how many times they grow."""
    measured, planned = growth_of(rows), growth_of(rows, "plan_bytes")
    head = (
        "method",
        "batch",
        "seconds",
        "GB above idle",
        "activations, GB",
        "plan, GB",
        "activations by plan, GB",
    )
    cells = [
        (
            row["method"],
            row["batch"],
            f"{row['seconds']:g}",
            gigabytes(row["above_idle_bytes"]),
            gigabytes(frontier.activations_bytes(row)),
            gigabytes(row["plan_bytes"]),
            gigabytes(frontier.activations_bytes(row, "plan_bytes")),
        )
        for row in rows
    ]
    said = []
    if "batch" in measured:
        said.append(
            f"Exact, from batch 4 to batch 64: the peak is {measured['batch']:.3f} times as large, the plan "
            f"{planned['batch']:.3f} times."
        )
    said += [
        f"{method}, from 15 s to 30 s: activations are {measured[method]:.2f} times as large, by the plan "
        f"{planned[method]:.2f} times."
        for method in ("plain", "exact")
        if method in measured
    ]
    return [
        "Activations: what a process, or the plan, holds beside parameters, gradients and the "
        "optimizer's state. A plan counts the batch itself. What a process holds beside the plan (its "
        "program, libraries) does not grow.",
        table(head, cells),
        *(["\n".join(said)] if said else []),
        "![growth](growth.png)",
    ]
