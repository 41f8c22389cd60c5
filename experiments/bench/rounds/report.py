"""rounds.md and rounds.png: every sentence is worked out from the numbers beside it."""

from pathlib import Path
from typing import Any

from experiments.report.tables import table

NAMES = {
    "ours": "this project",
    "loop": "a plain loop of jitted steps",
    "sequential": "one client at a time, everything resident",
    "fedjax_jit": "fedjax, jit backend",
    "drjax": "DrJAX",
    "pfl": "pfl",
    "flower": "Flower simulation",
}
STEP_NAMES = {
    "ours_fp32": "this project, fp32",
    "ours_bf16": "this project, bf16",
    "torch_fp32": "transformers, fp32",
    "torch_bf16": "transformers, bf16 autocast",
}


def counted(result: dict[str, Any], workload: str, clients: int) -> dict[str, dict[str, Any]]:
    """The fastest form of every runner, fastest first."""
    rows = [
        row
        for row in result["rows"]
        if (row["workload"], row["clients"]) == (workload, clients) and row["counts"]
    ]
    return {row["runner"]: row for row in sorted(rows, key=lambda row: row["seconds_per_round"])}


def settings(result: dict[str, Any]) -> list[tuple[str, int]]:
    """Workloads and numbers of clients, in the order measured."""
    return list(dict.fromkeys((row["workload"], row["clients"]) for row in result["rows"]))


def sentences(result: dict[str, Any]) -> list[str]:
    """Who was fastest, and by how much."""
    found = []
    for workload, clients in settings(result):
        rows = counted(result, workload, clients)
        peers = {name: row for name, row in rows.items() if name not in ("ours", "sequential")}
        if "ours" not in rows or not peers:
            continue
        best = next(iter(peers))
        ratio = peers[best]["seconds_per_round"] / rows["ours"]["seconds_per_round"]
        found.append(
            f"`{workload}`, {clients} clients: {ratio:.2f} times the client steps a second of {NAMES[best]}, the best peer."
        )
        if chosen := _choice(rows["ours"]):
            found.append(f"`{workload}`, {clients} clients: {chosen}")
        held = [r for r in result["rows"] if (r["workload"], r["clients"]) == (workload, clients)]
        wrong = sorted({r["runner"] for r in held} - set(rows))
        if wrong:
            found.append(
                f"`{workload}`, {clients} clients: {', '.join(wrong)} ended with other parameters in every form: not counted."
            )
    if result["absent"]:
        found.append(f"Not here, so not measured: {', '.join(result['absent'])}.")
    return found


def _choice(row: dict[str, Any]) -> str | None:
    """How this project's engine laid a round out, where it measured, and where one by one won on a CPU."""
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
        f"the automatic choice on {lanes} is {layout['chunk']} at a time (one by one {trials[1]:.4f} s a cohort"
        + (f", {others})." if others else ").")
    )


def markdown(result: dict[str, Any]) -> str:
    """What readers see."""
    made = result["provenance"]
    parts = [
        "# Rounds beside other frameworks",
        "Equal work: the same first parameters and batches, as many steps a client (plain SGD; `base`: AdamW), the mean of all clients; "
        f"medians over the rounds of {result['repeats']} turns (a second of rounds each, {result['rounds']} at most, the first one apart where there are more), interleaved in one run, every other process standing still "
        "(Flower's excepted, whose workers idle). Where a runner knows several forms the fastest one counts. Peers run at their frameworks' settings, this project at those that it sets itself. On an accelerator all data stay there "
        "(but for the plain loop, fedjax, pfl and Flower, which send a batch when it is trained on), and the peak is the device's, this project's trials of chunks included. Flower's peak is its driver's alone. FLOP utilisation: products of the model, "
        "forward and backward, over the device's dense rate at that precision, a data sheet's, or on a CPU a large product's.",
        "\n".join(f"- {sentence}" for sentence in sentences(result)),
        "![rounds](rounds.png)",
    ]
    for workload, clients in settings(result):
        rows = []
        for name, row in counted(result, workload, clients).items():
            rows.append(
                (
                    NAMES[name],
                    row["form"],
                    f"{row['seconds_per_round']:.4f}",
                    f"{row['seconds_p10']:.4f} to {row['seconds_p90']:.4f}",
                    f"{row['client_steps_per_second']:.1f}",
                    _or_dash(row["audio_seconds_per_second"], "{:.0f}"),
                    _or_dash(row["model_flop_utilisation"], "{:.1%}"),
                    f"{row['padded_share']:.1%}",
                    f"{row['startup_seconds']:.1f}",
                    f"{row['first_round_seconds']:.1f}",
                    f"{row['peak_bytes'] / 2**20:.0f}",
                    f"{row['distance']:.1e}",
                )
            )
        parts += [
            f"## {workload}, {clients} clients",
            table(
                ("runner", "form", "seconds a round", "p10 to p90", "client steps a second", "audio, s a second",
                 "FLOP utilisation", "padded", "start, s", "first round, s", "peak, MiB", "distance to the reference"),
                rows,
            ),
        ]  # fmt: skip
    parts.append(_made(made))
    return "\n\n".join(parts) + "\n"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def fedjax_markdown(result: dict[str, Any]) -> str:
    """fedjax's own FedAvg through two backends."""
    rows, lines = [], []
    for workload, clients in settings(result):
        held = counted(result, workload, clients)
        jit, vmap = held["fedjax_jit"], held["fedjax_vmap"]
        ratio = jit["seconds_per_round"] / vmap["seconds_per_round"]
        what = {"dense": "a model of products alone", "toy": "the toy model, with convolutions"}[workload]
        lines.append(f"- {what}, {clients} clients: {ratio:.2f} times the speed of the jit backend.")
        rows += [
            (workload, str(clients), name, row["form"], f"{row['seconds_per_round']:.4f}",
             f"{row['seconds_p10']:.4f} to {row['seconds_p90']:.4f}", f"{row['distance']:.1e}")
            for name, row in (("jit", jit), ("vmap", vmap))
        ]  # fmt: skip
    parts = [
        "# fedjax's FedAvg, one client at a time and vmapped",
        "The algorithm is fedjax's own, unchanged; only its for-each-client backend differs: `jit` is fedjax's, `vmap` this "
        f"project's, up to 32 clients side by side. Medians over {result['repeats']} interleaved turns of at most ten rounds.",
        "\n".join(lines),
        table(
            ("model", "clients", "backend", "form", "seconds a round", "p10 to p90", "distance to jit's"),
            rows,
        ),
        _made(result["provenance"]),
    ]
    return "\n\n".join(parts) + "\n"


def step_markdown(result: dict[str, Any]) -> str:
    """One step of base beside transformers' on torch."""
    made = result["provenance"]
    rows = {row["runner"]: row for row in result["rows"] if row["counts"]}
    lines = []
    if torch := rows.get("torch_fp32"):
        for name in ("ours_fp32", "ours_bf16", "torch_bf16"):
            if row := rows.get(name):
                ratio = torch["seconds_per_round"] / row["seconds_per_round"]
                lines.append(f"- {STEP_NAMES[name]}: {ratio:.2f} times the speed of torch in fp32.")
    if result["absent"]:
        lines.append(f"- Not here, so not measured: {', '.join(result['absent'])}.")
    parts = [
        "# One training step of base beside transformers on torch",
        f"Batch 1 of 5.5 s, plain SGD, the same parameters, masks, negatives and noise; medians of {result['repeats']} "
        "turns after two steps, interleaved in one run, the other processes standing still.",
        "\n".join(lines),
        table(
            ("runner", "form", "seconds a step", "p10 to p90", "start, s", "first step, s", "peak, MiB",
             "distance to the reference"),
            [
                (
                    STEP_NAMES[row["runner"]],
                    row["form"] + ("" if row["counts"] else " (slower)"),
                    f"{row['seconds_per_round']:.3f}",
                    f"{row['seconds_p10']:.3f} to {row['seconds_p90']:.3f}",
                    f"{row['startup_seconds']:.1f}",
                    f"{row['first_round_seconds']:.1f}",
                    f"{row['peak_bytes'] / 2**20:.0f}",
                    f"{row['distance']:.1e}",
                )
                for row in result["rows"]
            ],
        ),
        _made(made),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _made(made: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return f"Commit {made['commit']}; {made['device']}, {made['cores']} cores; {versions}.\n\n```\n{made['command']}\n```"


def draw(result: dict[str, Any], path: Path) -> None:
    """Client steps a second by runner, a panel for each workload and K."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    places = settings(result)
    columns = min(3, len(places))
    rows = -(-len(places) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(5.2 * columns, 3.2 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(places) :]:
        axis.set_axis_off()
    for axis, (workload, clients) in zip(axes.flat, places, strict=False):
        held = counted(result, workload, clients)
        speeds = [row["client_steps_per_second"] for row in held.values()]
        colours = ["tab:blue" if name == "ours" else "tab:gray" for name in held]
        axis.barh(list(held), speeds, color=colours)
        axis.invert_yaxis()
        axis.set(title=f"{workload}, {clients} clients", xlabel="client steps a second")
    figure.savefig(path, dpi=110)
    plt.close(figure)
