"""Write table2.md and draw table2.png."""

from pathlib import Path
from typing import Any

from experiments import paper
from experiments.report.figures import PAGE_INCHES, message, picture
from experiments.report.tables import table
from experiments.report.units import GIGA, gigabytes, percent


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    memory, provenance = result["memory"], result["provenance"]
    sections = [
        "# Table 2: seconds of a training step at 5.5 s",
        "Modelled: the roofline of `profiling/step_time.py`. The cells of a device are predicted from "
        f"the *other* devices and one cell of its own ({result['calibrating_cell']}: calibrates). Memory: "
        "the compiler's plan for the device against three quarters of its memory; borderline is inside "
        f"the plan's error ({percent(memory['plan_error'])}).",
        _cells(result["rows"]),
        "![table](table2.png)",
        "## How good the model is",
        _errors(result["errors"]),
        _fitted(result),
        oom_words(memory),
        "The paper does not say which variant of a board it used. Verdicts take the upper end of the "
        "class in which it puts the device (8 GB for the Raspberry Pi 4 and the Xavier NX, 12 GB for the "
        "AGX, in binary units), of which XLA by its own default takes three quarters. With the 32 GB "
        "that an AGX is sold with, its OOM cell would be predicted to fit.",
        "## What the paper's text derives from its table",
        _derived(result),
        f"Hours: {paper.TEN_CLIENT_CLIPS:,} clips of a ten-client share, batch 4, base, fp32. The paper's "
        f"two weeks on the A40 are {result['implied_epochs']:.0f} such epochs.",
        _measured(result["measured"]),
        (
            f"`{provenance['command']}`, commit {provenance['commit']}; plans by jaxlib "
            f"{memory['plans']['jaxlib']}"
        ),
    ]
    return "\n\n".join(sections) + "\n"


def oom_words(memory: dict[str, Any]) -> str:
    """Say how plans and printed OOM cells agree."""
    missed = memory["printed_oom"] - memory["printed_oom_predicted"] - memory["printed_oom_borderline"]
    return (
        f"Compilers' plans predict {memory['printed_oom_predicted']} of {memory['printed_oom']} printed "
        f"OOM cells, leave {memory['printed_oom_borderline']} borderline and miss {missed}. They call "
        f"{memory['timed_predicted_oom']} of {memory['timed']} timed cells too large and "
        f"{memory['timed_borderline']} borderline."
    )


def _cells(rows: list[dict[str, Any]]) -> str:
    head = (
        "device",
        "cell",
        "printed",
        "modelled",
        "error",
        "measured",
        "plan, GB",
        "usable, GB",
        "memory",
    )
    return table(head, [_cell(row) for row in rows])


def _cell(row: dict[str, Any]) -> tuple[str, ...]:
    printed, modelled, verdict = row["printed"], row["modelled"], row["verdict"]
    timed, error = printed != paper.OOM, ""
    if timed:
        shown = f"{modelled:.2f}" if modelled else "calibrates"
        error = f"{modelled / printed - 1:+.0%}" if modelled else ""
    else:
        shown = paper.OOM if verdict == "too large" else verdict
    wrong = verdict == ("too large" if timed else "fits")
    return (
        row["title"],
        row["cell"],
        f"{printed:.2f}" if timed else printed,
        shown,
        error,
        ", ".join(f"{m:.2f}" if isinstance(m, float) else m for m in row["measured"]) or "-",
        gigabytes(row["plan_bytes"]),
        gigabytes(row["usable_bytes"]),
        f"{verdict} (wrong)" if wrong else verdict,
    )


def _errors(errors: dict[str, Any]) -> str:
    fits = (
        ("model", "roofline", "a device but for one cell"),
        ("additive", "log-additive (device x model x batch x precision)", "a device but for one cell"),
        ("additive_single", "log-additive", "a single cell"),
    )
    rows = []
    for name, fit, left_out in fits:
        error = errors[name]
        sizes = (percent(error["median"], 1), percent(error["mean"], 1), percent(error["largest"]))
        rows.append((fit, left_out, error["cells"], *sizes))
    return table(("fit", "left out", "cells", "median error", "mean", "largest"), rows)


def _fitted(result: dict[str, Any]) -> str:
    """State the fitted efficiencies, and each device's factor."""
    from profiling.devices import DEVICES

    fitted = result["efficiencies"]
    factors = ", ".join(f"{DEVICES[name].title} {factor:.2f}" for name, factor in result["factors"].items())
    return (
        f"Fitted over all cells: accelerators reach {percent(fitted['accelerator_share'])} of their peak "
        f"in products, CPUs {percent(fitted['processor_share'])}; a step moves {fitted['traffic']:.2f} x "
        "the bytes of its unfused operations; every step on an accelerator takes "
        f"{fitted['fixed_seconds'] * 1e3:.0f} ms more. Factors of the devices: {factors}."
    )


def _derived(result: dict[str, Any]) -> str:
    """Show slowdowns, gains and hours that follow from the printed seconds."""
    from profiling.devices import DEVICES

    cells = [
        name
        for name in dict.fromkeys(name for row in result["slowdowns"].values() for name in row)
        if name.endswith("fp32")
    ]
    head = (
        "device",
        *(f"slower than the A40: {name}" for name in cells),
        "saved per sequence, batch 1 to 4",
        "printed",
        "mixed, batch 1",
        "mixed, batch 4",
        "hours a client-epoch",
    )
    rows = []
    for device in paper.TABLE_2:
        slower = result["slowdowns"].get(device, {})
        # JSON has the batches as text.
        gains = {int(batch): gain for batch, gain in result["mixed_gains"].get(device, {}).items()}
        rows.append(
            (
                DEVICES[device].title,
                *(f"{slower[name]:.4g} x" if name in slower else None for name in cells),
                percent(result["sequence_gains"][device], 1),
                percent(result["printed_sequence_gains"].get(device)),
                *(f"{gains[batch]:.2f} x" if batch in gains else None for batch in (1, 4)),
                f"{result['client_epoch_hours'][device]:.3g}",
            )
        )
    return table(head, rows)


def _measured(rows: list[dict[str, Any]]) -> str:
    """Show measured steps, those of boards that are in no table too."""
    if not rows:
        return "Measured: nothing yet; docs/guides/boards.md says how to bring a timings.json back."
    cells = []
    for row in rows:
        setting = row["settings"]
        known = "" if row["device"] else " (not in the catalogue: shown, not modelled)"
        step = (
            f"{setting['model']}, batch {setting['batch']} x {setting['seconds']:g} s, "
            f"{setting['precision']}, {setting['method']}, {setting['optimizer']}"
        )
        took = f"{row['seconds']:.3g}" if row["seconds"] is not None else paper.OOM
        cells.append((f"{row['title']}{known}", step, took, percent(row["spread"])))
    return "## Measured\n\n" + table(("board", "step", "seconds", "spread"), cells)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw modelled against printed seconds, and plans against usable memory."""
    with picture(path, 1, 2, figsize=(PAGE_INCHES, 4.6)) as (left, right):
        devices = list(dict.fromkeys(row["device"] for row in result["rows"]))
        for place, device in enumerate(devices):
            rows = [row for row in result["rows"] if row["device"] == device]
            _device_seconds(left, rows, f"C{place}")
            _device_memory(right, rows, place)
        ends = [0.08, 90]
        left.plot(ends, ends, color="black", linewidth=1)
        low, high = [0.85 * end for end in ends], [1.15 * end for end in ends]
        left.fill_between(ends, low, high, color="gray", alpha=0.2)
        left.set(
            xscale="log",
            yscale="log",
            xlabel="printed, seconds a step",
            ylabel="modelled, seconds a step",
            title="Seconds of a step",
        )
        titles = {row["device"]: row["title"].split(" (")[0] for row in result["rows"]}
        right.set_yticks(range(len(devices)), [titles[device] for device in devices])
        for place, name in enumerate(right.get_yticklabels()):
            name.set_color(f"C{place}")
        right.invert_yaxis()
        right.set(xlim=(0, 15), xlabel="compiler's plan, GB", title="What fits")
        for axis in (left, right):
            axis.grid(alpha=0.3)
        error = result["errors"]["model"]
        message(
            left,
            f"Left: {error['cells']} cells, each modelled from the other devices and one cell of its own; "
            f"the median error is {percent(error['median'], 1)}. The grey band is within 15 % of the print. "
            f"Colours are those of the names at the right.\nRight: {oom_words(result['memory'])} A bar is "
            "what the device can use, a dot the plan of a timed cell, a red cross that of a cell printed as "
            "out of memory.",
        )


def _device_seconds(axis: Any, rows: list[dict[str, Any]], colour: str) -> None:
    """Draw a device's modelled against its printed seconds."""
    pairs = [(row["printed"], row["modelled"]) for row in rows if row["modelled"]]
    axis.scatter(*zip(*pairs, strict=True), color=colour, zorder=3)


def _device_memory(axis: Any, rows: list[dict[str, Any]], place: int) -> None:
    """Draw a device's plans as points, crosses for printed OOM, on a bar of its usable memory."""
    colour = f"C{place}"
    for row in rows:
        oom = row["printed"] == paper.OOM
        axis.scatter(
            (row["plan_bytes"] or float("nan")) / GIGA,
            place + (0.12 if oom else -0.12),
            marker="x" if oom else "o",
            color="red" if oom else colour,
            zorder=3,
        )
    axis.hlines(place, 0, rows[0]["usable_bytes"] / GIGA, color=colour, linewidth=9, alpha=0.25)
