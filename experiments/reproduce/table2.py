"""`w2v-jax reproduce table2`: price a training step on the paper's devices beside its printed seconds."""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

from experiments import paper
from experiments.costs.devices.records import PLAN_ERROR
from experiments.options import arguments
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance
from experiments.report.writer import write_report
from experiments.reproduce.comparison import Comparison, Item
from experiments.reproduce.table2_report import draw, markdown, oom_words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table2Arguments:
    """Compare Table 2 with a step-time model, and with measurements where given (a minute; nothing is run).

    example: w2v-jax reproduce table2 --timings nx/timings.json agx/timings.json --out reports/table2
    """

    out: Path
    """Folder for table2.json, table2.md and table2.png."""
    timings: tuple[Path, ...] = ()
    """Files that runner.py wrote on boards (docs/guides/boards.md). Default: none."""


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
    print(write_report(options.out, "table2", result, markdown, draw))
    print(f"written: {options.out / 'table2.json'}, table2.md, table2.png")


def table2(measured: list[Any]) -> dict[str, Any]:
    """Compute everything that the report shows.

    Args:
        measured: timings of boards, as read_timings gives them.
    """
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
    predicted = {(names[cell.device.title], cell.name): seconds for cell, seconds in held["model"]}
    rows = [_row(row, predicted, measured) for row in table.memory_verdicts()]
    return {
        "rows": rows,
        "errors": {name: _errors(step_time.errors(pairs)) for name, pairs in held.items()},
        "calibrating_cell": table.name_of(table.CALIBRATING),
        "efficiencies": dataclasses.asdict(fitted.efficiencies),
        "factors": {names[title]: factor for title, factor in fitted.factors.items()},
        "memory": {
            **memory_counts(rows),
            "plan_error": PLAN_ERROR,
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


def _row(row: dict[str, Any], predicted: dict[Any, float], measured: list[Any]) -> dict[str, Any]:
    """Add the title, the modelled and the measured seconds to a cell of the table."""
    from experiments.costs.devices.paper_seconds import name_of
    from profiling.devices import DEVICES

    setting = (paper.TABLE_2_SECONDS, "plain")
    return {
        **row,
        "title": DEVICES[row["device"]].title,
        "modelled": predicted.get((row["device"], row["cell"])),
        "measured": [
            m.seconds if m.seconds is not None else paper.OOM
            for m in measured
            if (m.device, name_of(m.key)) == (row["device"], row["cell"])
            and (m.settings["seconds"], m.settings["method"]) == setting
        ],
    }


def _errors(relative: Any) -> dict[str, float]:
    """Summarise relative errors of predictions by their size."""
    import numpy as np

    size = np.abs(relative)
    return {
        "cells": len(size),
        "median": float(np.median(size)),
        "mean": float(np.mean(size)),
        "largest": float(np.max(size)),
    }


def memory_counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Count the verdicts on printed OOM cells and on timed cells."""
    gone = [row["verdict"] for row in rows if row["printed"] == paper.OOM]
    timed = [row["verdict"] for row in rows if row["printed"] != paper.OOM]
    return {
        "printed_oom": len(gone),
        "printed_oom_predicted": gone.count("too large"),
        "printed_oom_borderline": gone.count("borderline"),
        "timed": len(timed),
        "timed_predicted_oom": timed.count("too large"),
        "timed_borderline": timed.count("borderline"),
    }


def compare(result: dict[str, Any]) -> list[Comparison]:
    """Set the cells of Table 2, then the gains of a larger batch, beside ours."""
    found = [_cell(row) for row in result["rows"]]
    titles = {row["device"]: row["title"] for row in result["rows"]}
    for device, gain in result["printed_sequence_gains"].items():
        found.append(
            Comparison(
                f"{titles[device]}: time a sequence saves from batch 1 to 4, per cent",
                100 * gain,
                100 * result["sequence_gains"][device],
                0,
                verdict="from its own seconds",
            )
        )
    return found


def _cell(row: dict[str, Any]) -> Comparison:
    """Compare a cell: an OOM with the plan's verdict, seconds with measured ones, else with modelled ones."""
    what = f"{row['title']}: {row['cell']}, seconds"
    if row["printed"] == paper.OOM:
        if row["verdict"] == "borderline":
            return Comparison(what, paper.OOM, "borderline", verdict="inside the plan's error")
        return Comparison(what, paper.OOM, paper.OOM if row["verdict"] == "too large" else row["verdict"])
    if row["measured"]:
        return Comparison(f"{what}, measured", row["printed"], _median(row["measured"]))
    if row["modelled"] is None:
        return Comparison(what, row["printed"], row["printed"], verdict="calibrates the model")
    return Comparison(what, row["printed"], row["modelled"])


def _median(measured: list[float | str]) -> float | str:
    """Take the median of measured seconds; OOM where a board ran out of memory each time."""
    seconds = [value for value in measured if not isinstance(value, str)]
    return statistics.median(seconds) if seconds else paper.OOM


def meaning(result: dict[str, Any]) -> str:
    """Say what Table 2 means."""
    errors, memory = result["errors"]["model"], result["memory"]
    return (
        "No board is here, so its seconds are predicted from the other devices' cells and one cell of "
        f"its own, by operations, bytes and a data sheet. Over {errors['cells']} cells the median error "
        f"is {errors['median']:.0%}, the largest {errors['largest']:.0%}. {oom_words(memory)} Memory is "
        "that of the class in which the paper puts a board. A board's own times take the model's place "
        "once `runner.py` has run there (docs/guides/boards.md)."
    )


ITEM = Item("table2", "Table 2: seconds of a training step", ("reproduce", "table2"), compare, meaning)
