"""The reports of `bench rounds`. All statements follow from the measured numbers."""

import math
from typing import Any

import numpy as np

from experiments.report.footer import footer
from experiments.report.statistics import interval
from experiments.report.tables import table
from experiments.report.units import percent

NAMES = {
    "ours": "this project",
    "loop": "a plain loop of jitted steps",
    "sequential": "one client at a time, everything resident",
    "fedjax_jit": "fedjax, jit backend",
    "drjax": "DrJAX",
    "pfl": "pfl",
    "flower": "Flower simulation",
    "blazefl": "BlazeFL, threads without the interpreter lock",
}
STEP_NAMES = {
    "ours_fp32": "this project, fp32",
    "ours_bf16": "this project, bf16",
    "torch_fp32": "transformers, fp32",
    "torch_bf16": "transformers, bf16 autocast",
}
MODELS = {"dense": "a model of products alone", "toy": "the toy model, with convolutions"}
HEAD = (
    "runner",
    "form",
    "seconds a round",
    "p10 to p90",
    "client steps a second",
    "audio, s a second",
    "FLOP utilisation",
    "padded",
    "start, s",
    "first round, s",
    "peak, MiB",
    "distance to the reference",
)
STEP_HEAD = (
    "runner",
    "form",
    "seconds a step",
    "p10 to p90",
    "start, s",
    "first step, s",
    "peak, MiB",
    "distance to the reference",
)


def counted(result: dict[str, Any], workload: str, clients: int) -> dict[str, dict[str, Any]]:
    """Return the fastest form of every runner, fastest first."""
    rows = [
        row
        for row in result["rows"]
        if (row["workload"], row["clients"]) == (workload, clients) and row["counts"]
    ]
    return {row["runner"]: row for row in sorted(rows, key=lambda row: row["seconds_per_round"])}


def settings(result: dict[str, Any]) -> list[tuple[str, int]]:
    """Return workloads and numbers of clients in the order in which they were measured."""
    return list(dict.fromkeys((row["workload"], row["clients"]) for row in result["rows"]))


def caution(one: dict[str, Any], other: dict[str, Any], comparisons: int) -> str:
    """Say so where the t interval of two rows' ratio of seconds holds 1; else return nothing.

    Args:
        one, other: rows whose rounds were measured in the same turns.
        comparisons: pairs of rows that the report compares; the intervals are corrected for all of them.
    """
    logarithms = [math.log(b / a) for a, b in zip(one["seconds"], other["seconds"], strict=False)]
    half = interval(logarithms, comparisons)
    if half is not None and abs(float(np.mean(logarithms))) > half:
        return ""
    return " (no difference is shown: the ratio's 95 % interval holds 1)"


def sentences(result: dict[str, Any]) -> list[str]:
    """Compare this project with the fastest peer, and name the runners that do not count."""
    found = []
    for workload, clients in settings(result):
        rows = counted(result, workload, clients)
        peers = {name: row for name, row in rows.items() if name not in ("ours", "sequential")}
        if "ours" not in rows or not peers:
            continue
        best = next(iter(peers))
        ratio = peers[best]["seconds_per_round"] / rows["ours"]["seconds_per_round"]
        title = f"`{workload}`, {clients} clients"
        found.append(
            f"{title}: {ratio:.2f} times the client steps a second of {NAMES[best]}, the best peer"
            f"{caution(rows['ours'], peers[best], len(settings(result)))}."
        )
        if chosen := _choice(rows["ours"]):
            found.append(f"{title}: {chosen}")
        own = [r for r in result["rows"] if (r["workload"], r["clients"]) == (workload, clients)]
        if wrong := sorted({r["runner"] for r in own} - set(rows)):
            found.append(
                f"{title}: {', '.join(wrong)} ended with other parameters in every form: not counted."
            )
    if result["absent"]:
        found.append(_absent(result))
    return found


def _absent(result: dict[str, Any]) -> str:
    return f"Not here, so not measured: {', '.join(result['absent'])}."


def _choice(row: dict[str, Any]) -> str | None:
    """Describe the layout that this project's engine chose, with its trials; None for rows without one."""
    layout = row.get("layout") or {}
    if not layout:
        return None
    trials = {trial["chunk"]: trial["cohort_seconds"] for trial in layout["trials"]}
    lanes = f"{layout['lanes']} lane" + ("s" if layout["lanes"] > 1 else "")
    if not trials:
        return f"the automatic choice is one client at a time on each of {lanes}."
    others = ", ".join(
        f"{chunk} side by side " + (f"{seconds:.4f} s" if seconds else "does not fit")
        for chunk, seconds in trials.items()
        if chunk > 1
    )
    return (
        f"the automatic choice on {lanes} is {layout['chunk']} at a time (one by one {trials[1]:.4f} s a "
        + (f"cohort, {others})." if others else "cohort).")
    )


def _introduction(result: dict[str, Any]) -> str:
    """Explain how rounds are measured."""
    return (
        "All runners do equal work: the same first parameters and batches, as many steps a client (plain "
        "SGD; `base`: AdamW), and the mean of all clients. The table shows medians over the rounds of "
        f"{result['repeats']} turns. A turn is a second of rounds, {result['rounds']} at most, without its "
        "first round where there are more. Turns are interleaved in one run, and every other process is "
        "stopped (except Flower's, whose workers idle). Where a runner has several forms, the fastest one "
        "counts. Peers run with their frameworks' settings, this project with the settings that it chooses "
        "itself. On an accelerator all data stay there (except for the plain loop, fedjax, pfl and Flower, "
        "which send a batch when they train on it), and the peak is the device's, including this project's "
        "trials of chunks. Flower's peak is its driver's alone. FLOP utilisation: products of the model, "
        "forward and backward, over the device's dense rate at that precision; the rate is a data sheet's, "
        "or on a CPU a large product's."
    )


def _timing(row: dict[str, Any], digits: int) -> tuple[str, str]:
    """Format the median and the range of a row's seconds."""
    low, high = (f"{row[name]:.{digits}f}" for name in ("seconds_p10", "seconds_p90"))
    return f"{row['seconds_per_round']:.{digits}f}", f"{low} to {high}"


def _start_and_peak(row: dict[str, Any]) -> tuple[str, ...]:
    """Format a row's start, first round, peak and distance."""
    return (
        f"{row['startup_seconds']:.1f}",
        f"{row['first_round_seconds']:.1f}",
        f"{row['peak_bytes'] / 2**20:.0f}",
        f"{row['distance']:.1e}",
    )


def markdown(result: dict[str, Any]) -> str:
    """Write rounds.md."""
    parts = [
        "# Rounds beside other frameworks",
        _introduction(result),
        "\n".join(f"- {sentence}" for sentence in sentences(result)),
        "![rounds](rounds.png)",
    ]
    for workload, clients in settings(result):
        rows = [
            (
                NAMES[name],
                row["form"],
                *_timing(row, 4),
                f"{row['client_steps_per_second']:.1f}",
                f"{row['audio_seconds_per_second']:.0f}" if row["audio_seconds_per_second"] else None,
                percent(row["model_flop_utilisation"], 1),
                percent(row["padded_share"], 1),
                *_start_and_peak(row),
            )
            for name, row in counted(result, workload, clients).items()
        ]
        parts += [f"## {workload}, {clients} clients", table(HEAD, rows)]
    return "\n\n".join([*parts, footer(result["provenance"])]) + "\n"


def fedjax_markdown(result: dict[str, Any]) -> str:
    """Write fedjax.md, which compares fedjax's own FedAvg through two backends."""
    rows, lines = [], []
    for workload, clients in settings(result):
        found = counted(result, workload, clients)
        jit, vmap = found["fedjax_jit"], found["fedjax_vmap"]
        ratio = jit["seconds_per_round"] / vmap["seconds_per_round"]
        lines.append(
            f"- {MODELS[workload]}, {clients} clients: {ratio:.2f} times the speed of the jit backend"
            f"{caution(jit, vmap, len(settings(result)))}."
        )
        rows += [
            (workload, clients, name, row["form"], *_timing(row, 4), f"{row['distance']:.1e}")
            for name, row in (("jit", jit), ("vmap", vmap))
        ]
    head = ("model", "clients", "backend", "form", "seconds a round", "p10 to p90", "distance to jit's")
    parts = [
        "# fedjax's FedAvg, one client at a time and vmapped",
        "The algorithm is fedjax's own, unchanged; only its for-each-client backend differs. `jit` is "
        "fedjax's backend, `vmap` is this project's, with up to 32 clients side by side. The table shows "
        f"medians over {result['repeats']} interleaved turns of at most ten rounds.",
        "\n".join(lines),
        table(head, rows),
        footer(result["provenance"]),
    ]
    return "\n\n".join(parts) + "\n"


def step_markdown(result: dict[str, Any]) -> str:
    """Write step.md, which compares one step of base with transformers on torch."""
    rows = {row["runner"]: row for row in result["rows"] if row["counts"]}
    lines = []
    if torch := rows.get("torch_fp32"):
        for name in ("ours_fp32", "ours_bf16", "torch_bf16"):
            if row := rows.get(name):
                ratio = torch["seconds_per_round"] / row["seconds_per_round"]
                lines.append(
                    f"- {STEP_NAMES[name]}: {ratio:.2f} times the speed of torch in fp32"
                    f"{caution(row, torch, len(STEP_NAMES) - 1)}."
                )
    if result["absent"]:
        lines.append(f"- {_absent(result)}")
    cells = [
        (
            STEP_NAMES[row["runner"]],
            row["form"] + ("" if row["counts"] else " (slower)"),
            *_timing(row, 3),
            *_start_and_peak(row),
        )
        for row in result["rows"]
    ]
    parts = [
        "# One training step of base beside transformers on torch",
        "Batch 1 of 5.5 s, plain SGD, the same parameters, masks, negatives and noise. The table shows "
        f"medians of {result['repeats']} turns after two steps, interleaved in one run, while the other "
        "processes are stopped.",
        "\n".join(lines),
        table(STEP_HEAD, cells),
        footer(result["provenance"]),
    ]
    return "\n\n".join(parts) + "\n"
