"""`w2v-jax reproduce table2`: seconds of a training step on the paper's devices: printed, modelled, measured."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments import paper
from experiments.options import arguments
from experiments.process import xla_flags
from experiments.process.files import replace_file, write_json
from experiments.process.provenance import record_provenance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table2Arguments:
    """Table 2 beside a step-time model and, where timings are given, measurements (a minute; nothing is run).

    example: w2v-jax reproduce table2 --timings nx/timings.json agx/timings.json --out reports/table2
    """

    out: Path
    """Folder for table2.json, table2.md and table2.png."""
    timings: tuple[Path, ...] = ()
    """Files that runner.py wrote on boards (docs/boards.md)."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(Table2Arguments, argv, "w2v-jax reproduce table2")
    from experiments.costs.devices import plan_surface
    from experiments.costs.devices.timings import read_timings

    with arguments.blaming("--timings"):
        measured = [read_timings(path) for path in options.timings]
    plan_surface.kept()
    options.out.mkdir(parents=True, exist_ok=True)
    xla_flags.configure_xla(1)
    result = table2(measured) | {"provenance": record_provenance("reproduce table2")}
    write_json(options.out / "table2.json", result)
    text = markdown(result)
    replace_file(options.out / "table2.md", text)
    draw(result, options.out / "table2.png")
    print(text)
    print(f"written: {options.out / 'table2.json'}, table2.md, table2.png")


def table2(measured: list[Any]) -> dict[str, Any]:
    """Everything that the report shows."""
    import numpy as np

    from experiments.costs.devices import paper_seconds as table
    from experiments.costs.devices import plan_surface
    from experiments.process.progress import stage
    from profiling import step_time
    from profiling.devices import DEVICES

    stage("pricing the steps of Table 2")
    cells = table.cells()
    stage("leaving out device after device")
    fitted, held = step_time.fit(cells), table.held_out(cells)
    names = {DEVICES[name].title: name for name in paper.TABLE_2}
    predicted = {(names[c.device.title], c.name): seconds for c, seconds in held["model"]}
    rows = table.memory_verdicts()
    for row in rows:
        row["title"] = DEVICES[row["device"]].title
        row["modelled"] = predicted.get((row["device"], row["cell"]))
        row["measured"] = [
            m.seconds if m.seconds is not None else paper.OOM
            for m in measured
            if m.device == row["device"]
            and table.name_of(m.key) == row["cell"]
            and (m.settings["seconds"], m.settings["method"]) == (paper.TABLE_2_SECONDS, "plain")
        ]
    printed_oom = [row for row in rows if row["printed"] == paper.OOM]
    return {
        "rows": rows,
        "errors": {
            name: {
                "cells": len(pairs),
                "median": float(np.median(np.abs(step_time.errors(pairs)))),
                "mean": float(np.mean(np.abs(step_time.errors(pairs)))),
                "largest": float(np.max(np.abs(step_time.errors(pairs)))),
            }
            for name, pairs in held.items()
        },
        "calibrating_cell": table.name_of(table.CALIBRATING),
        "efficiencies": dataclasses.asdict(fitted.efficiencies),
        "factors": {names[title]: factor for title, factor in fitted.factors.items()},
        "memory": {
            "printed_oom": len(printed_oom),
            "printed_oom_predicted": sum(row["verdict"] == "too large" for row in printed_oom),
            "timed": len(rows) - len(printed_oom),
            "timed_predicted_oom": sum(
                row["verdict"] == "too large" for row in rows if row["printed"] != paper.OOM
            ),
            "plans": plan_surface.kept()["provenance"]["versions"],
        },
        "slowdowns": {
            device: {table.name_of(key): value for key, value in row.items()}
            for device, row in table.slowdowns().items()
        },
        "sequence_gains": table.sequence_gains(),
        "printed_sequence_gains": paper.SEQUENCE_GAINS,
        "mixed_gains": table.mixed_gains(),
        "client_epoch_hours": table.client_epoch_hours(),
        "implied_epochs": table.implied_epochs(),
        "measured": [
            {
                "title": m.title,
                "device": m.device,
                "settings": m.settings,
                "seconds": m.seconds,
                "spread": m.spread,
                "artifact": m.record["artifact"].get("checksum"),
            }
            for m in measured
        ],
    }


def markdown(result: dict[str, Any]) -> str:
    """The report."""
    from experiments.feasibility.report import gigabytes
    from profiling.devices import DEVICES

    errors, memory = result["errors"], result["memory"]
    lines = [
        "# Table 2: seconds of a training step at 5.5 s",
        "",
        f"Modelled: the roofline of `profiling/step_time.py`. Every device's cells are predicted from the *other* devices and one cell of its own ({result['calibrating_cell']}: calibrates). Memory: the compiler's plan for the device against three quarters of its memory.",
        "",
        "| device | cell | printed | modelled | error | measured | plan, GB | usable, GB | memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        printed, modelled = row["printed"], row["modelled"]
        timed = printed != paper.OOM
        if timed:
            shown = f"{modelled:.2f}" if modelled else "calibrates"
            error = f"{modelled / printed - 1:+.0%}" if modelled else ""
        else:
            shown, error = (paper.OOM if row["verdict"] == "too large" else "fits"), ""
        measured = ", ".join(f"{m:.2f}" if isinstance(m, float) else m for m in row["measured"]) or "-"
        right = (row["verdict"] == "fits") == timed
        lines.append(
            f"| {row['title']} | {row['cell']} | {f'{printed:.2f}' if timed else printed} | {shown} | {error} | {measured} | {gigabytes(row['plan_bytes'])} | {gigabytes(row['usable_bytes'])} | {row['verdict']}{'' if right else ' (wrong)'} |"
        )
    model, additive, single = errors["model"], errors["additive"], errors["additive_single"]
    e = result["efficiencies"]
    lines += [
        "",
        "![table](table2.png)",
        "",
        "## How good the model is",
        "",
        "| fit | left out | cells | median error | mean | largest |",
        "|---|---|---|---|---|---|",
        f"| roofline | a device but for one cell | {model['cells']} | {model['median']:.1%} | {model['mean']:.1%} | {model['largest']:.0%} |",
        f"| log-additive (device x model x batch x precision) | a device but for one cell | {additive['cells']} | {additive['median']:.1%} | {additive['mean']:.1%} | {additive['largest']:.0%} |",
        f"| log-additive | a single cell | {single['cells']} | {single['median']:.1%} | {single['mean']:.1%} | {single['largest']:.0%} |",
        "",
        f"Fitted over all cells: accelerators reach {e['accelerator_share']:.0%} of their peak in products, CPUs {e['processor_share']:.0%}; {e['traffic']:.2f} x the bytes of unfused operations are moved; {e['fixed_seconds'] * 1e3:.0f} ms a step on an accelerator whatever it does. Factors of the devices: "
        + ", ".join(f"{DEVICES[name].title} {factor:.2f}" for name, factor in result["factors"].items())
        + ".",
        "",
        f"Memory: {memory['printed_oom_predicted']} of {memory['printed_oom']} printed OOM cells are predicted, and {memory['timed_predicted_oom']} of {memory['timed']} timed cells are predicted OOM.",
        "The paper does not say which variant of a board it used: verdicts go by the upper end of the class that it puts the device in (8 GB for the Raspberry Pi 4 and the Xavier NX, 12 GB for the AGX), of which XLA by its own default takes three quarters. With the 32 GB that an AGX is sold with, its OOM cell would be predicted to fit.",
        "",
        "## What the paper's text derives from its table",
        "",
        "| device | slower than the A40: "
        + " | ".join(name for name in _cells(result))
        + " | saved per sequence, batch 1 to 4 | printed | mixed, batch 1 | mixed, batch 4 | hours a client-epoch |",
        "|---|" + "---|" * (len(_cells(result)) + 5),
    ]
    for device in paper.TABLE_2:
        slower = result["slowdowns"].get(device, {})
        gains = result["mixed_gains"].get(device, {})
        printed = result["printed_sequence_gains"].get(device)
        lines.append(
            f"| {DEVICES[device].title} | "
            + " | ".join(f"{slower[name]:.4g} x" if name in slower else "-" for name in _cells(result))
            + f" | {result['sequence_gains'][device]:.1%} | {f'{printed:.0%}' if printed else '-'} | "
            + " | ".join(f"{gains[batch]:.2f} x" if batch in gains else "-" for batch in (1, 4))
            + f" | {result['client_epoch_hours'][device]:.3g} |"
        )
    lines += [
        "",
        f"Hours: {paper.TEN_CLIENT_CLIPS:,} clips of a ten-client share, batch 4, base, fp32. The paper's two weeks on the A40 are {result['implied_epochs']:.0f} such epochs.",
        "",
        *_measured(result["measured"]),
        f"`{result['provenance']['command']}`, commit {result['provenance']['commit']}; plans by jaxlib {memory['plans']['jaxlib']}",
    ]
    return "\n".join(lines) + "\n"


def _cells(result: dict[str, Any]) -> list[str]:
    """Names of the fp32 cells that the text compares."""
    found = dict.fromkeys(name for row in result["slowdowns"].values() for name in row)
    return [name for name in found if name.endswith("fp32")]


def _measured(rows: list[dict[str, Any]]) -> list[str]:
    """Measured steps in words, those of boards that are in no table too."""
    if not rows:
        return ["Measured: nothing yet; docs/boards.md says how to bring a timings.json back.", ""]
    lines = ["## Measured", "", "| board | step | seconds | spread |", "|---|---|---|---|"]
    for row in rows:
        s = row["settings"]
        known = "" if row["device"] else " (not in the catalogue: shown, not modelled)"
        took = f"{row['seconds']:.3g}" if row["seconds"] is not None else "OOM"
        spread = f"{row['spread']:.0%}" if row["spread"] is not None else "-"
        lines.append(
            f"| {row['title']}{known} | {s['model']}, batch {s['batch']} x {s['seconds']:g} s, {s['precision']}, {s['method']}, {s['optimizer']} | {took} | {spread} |"
        )
    return [*lines, ""]


def draw(result: dict[str, Any], path: Path) -> None:
    """Modelled against printed, and memory against what is usable."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    devices = list(dict.fromkeys(row["device"] for row in result["rows"]))
    for place, device in enumerate(devices):
        colour = f"C{place}"
        rows = [row for row in result["rows"] if row["device"] == device]
        pairs = [(row["printed"], row["modelled"]) for row in rows if row["modelled"]]
        left.scatter(*zip(*pairs, strict=True), color=colour, label=rows[0]["title"], zorder=3)
        for row in rows:
            oom = row["printed"] == paper.OOM
            right.scatter(
                (row["plan_bytes"] or float("nan")) / 1e9,
                place + (0.12 if oom else -0.12),
                marker="x" if oom else "o",
                color="red" if oom else colour,
                zorder=3,
            )
        right.hlines(place, 0, rows[0]["usable_bytes"] / 1e9, color=colour, linewidth=9, alpha=0.25)
    ends = [0.08, 90]
    left.plot(ends, ends, color="black", linewidth=1)
    left.fill_between(
        ends, [0.85 * e for e in ends], [1.15 * e for e in ends], color="gray", alpha=0.2, label="within 15 %"
    )
    left.set(
        xscale="log",
        yscale="log",
        xlabel="printed, seconds a step",
        ylabel="modelled from the other devices and one cell, seconds",
        title="Table 2: seconds of a step",
    )
    left.legend(fontsize=8)
    right.set_yticks(range(len(devices)), [row["title"] for row in _first(result["rows"], devices)])
    right.invert_yaxis()
    right.set(
        xlim=(0, 15),
        xlabel="GB of the compiler's plan; bar: usable; cross: printed OOM",
        title="Table 2: what fits",
    )
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _first(rows: list[dict[str, Any]], devices: list[str]) -> list[dict[str, Any]]:
    return [next(row for row in rows if row["device"] == device) for device in devices]
