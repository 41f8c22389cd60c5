"""`w2v-jax reproduce table1`: compute parameters and forward FLOPs by module beside the printed ones."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments import paper
from experiments.costs.length_sweep import LONGEST_SECONDS
from experiments.costs.step.paper_convention import module_costs
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance
from experiments.report.figures import PAGE_INCHES, legend_above, message, picture
from experiments.report.tables import table
from experiments.report.units import GIGA
from experiments.report.writer import write_report
from experiments.reproduce.comparison import Comparison, Item

EXPLANATIONS = {
    ("base", "total", "params"): "printed: the sum of the rounded rows",
    ("base", "total", "flops"): "printed: the sum of the rounded rows",
    ("large", "quantization", "flops"): "0.9344 rounds to 0.93; 0.94 is printed",
    ("large", "total", "flops"): "the printed total contradicts its own rows, which sum to 198.38",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table1Arguments:
    """Compute Table 1 from the model itself. Nothing is run: programs are traced and counted.

    example: w2v-jax reproduce table1 --out reports/table1
    """

    out: Path
    """Folder for table1.json, table1.md and table1.png."""
    seconds: float = paper.TABLE_1_SECONDS
    """Length of each utterance, in seconds."""
    batch: int = 1
    """Utterances in a batch."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(Table1Arguments, argv, "w2v-jax reproduce table1")
    arguments.check_at_least(1, options, "batch")
    if not 0.1 <= options.seconds <= LONGEST_SECONDS:
        raise UsageError(f"--seconds must be between 0.1 and {LONGEST_SECONDS:g}, got {options.seconds:g}")
    options.out.mkdir(parents=True, exist_ok=True)
    xla_flags.configure_xla(1)
    from w2v_jax.config import PRESETS

    rows = []
    for model, printed in paper.TABLE_1.items():
        computed = module_costs(PRESETS[model], options.seconds, options.batch)
        for module, values in computed.items():
            # Parameters are printed for any setting, operations for one.
            params, flops = printed[module]
            beside = {"printed_params_m": params, "printed_gflops": flops if at_the_papers(options) else None}
            rows.append({"model": model, "module": module, **values, **beside})
    result = {
        "seconds": options.seconds,
        "batch": options.batch,
        "rows": rows,
        "ratios": ratios(rows),
        "provenance": record_provenance("reproduce table1"),
    }
    print(write_report(options.out, "table1", result, markdown, draw))
    print(f"written: {options.out / 'table1.json'}, table1.md, table1.png")


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Divide the Transformer by the CNN encoder, in parameters and in FLOPs, beside the printed ratios."""
    of = {(row["model"], row["module"]): row for row in rows}
    found = {}
    for model, (params, flops) in paper.RATIOS.items():
        transformer, encoder = of[model, "transformer"], of[model, "cnn_encoder"]
        found[model] = {
            "params": transformer["params"] / encoder["params"],
            "flops": transformer["flops_paper"] / encoder["flops_paper"],
            "printed_params": params,
            "printed_flops": flops,
        }
    return found


def at_the_papers(setting: Any) -> bool:
    """Tell whether operations were counted at the setting of the printed table."""
    return (setting.seconds, setting.batch) == (paper.TABLE_1_SECONDS, 1)


def agrees(value: float, printed: float) -> bool:
    """Tell whether a value comes out as it is printed, to two decimals."""
    return f"{value:.2f}" == f"{printed:.2f}"


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    at_printed = result["seconds"] == paper.TABLE_1_SECONDS and result["batch"] == 1
    head = ("model", "module", "M parameters", "GFLOPs, paper", "GFLOPs, full", "note")
    provenance = result["provenance"]
    ratios_ = [
        f"- {model}: {row['params']:.1f} x the parameters ({row['printed_params']}), "
        f"{row['flops']:.2f} x the FLOPs ({row['printed_flops']})"
        for model, row in result["ratios"].items()
    ]
    sections = [
        f"# Table 1: parameters and forward GFLOPs, {result['seconds']} s, batch {result['batch']}",
        "`paper` counts as a counter of modules does: it does not see products of activations with "
        "activations. `full` counts every operation, those on padding too. Printed values are in brackets.",
        table(head, [_cells(row, at_printed) for row in result["rows"]]),
        *([_matches(result)] if at_printed else []),
        "Transformer / CNN encoder, as the text has it:",
        "\n".join(ratios_),
        "![table](table1.png)",
        f"`{provenance['command']}`, commit {provenance['commit']}",
    ]
    return "\n\n".join(sections) + "\n"


def _cells(row: dict[str, Any], at_printed: bool) -> tuple[str, ...]:
    """Format a row of the table, with notes on cells that do not come out as printed."""
    kinds = ("params", "flops") if at_printed else ("params",)
    keys = [(row["model"], row["module"], what) for what in kinds]
    notes = dict.fromkeys(EXPLANATIONS[key] for key in keys if key in EXPLANATIONS)
    printed = f" ({row['printed_gflops']:.2f})" if at_printed else ""
    return (
        row["model"],
        row["module"].replace("_", " "),
        f"{row['params'] / 1e6:.4f} ({row['printed_params_m']:.2f})",
        f"{row['flops_paper'] / GIGA:.4f}{printed}",
        f"{row['flops_full'] / GIGA:.2f}",
        "; ".join(notes),
    )


def _matches(result: dict[str, Any]) -> str:
    """Count the cells that come out as printed, in a sentence."""
    cells = _printed_cells(result)
    return f"{sum(cell.agrees for cell in cells)} of {len(cells)} cells come out as printed."


def _printed_cells(result: dict[str, Any]) -> list[Comparison]:
    """Give the comparisons of the table's own cells, without the text's ratios."""
    return [cell for cell in compare(result) if " over " not in cell.what]


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw parameters and FLOPs by module, both models, ours beside printed."""
    rows = [row for row in result["rows"] if row["module"] != "total"]
    labels = [f"{row['model']}, {row['module'].replace('_', ' ')}" for row in rows]
    panels = (
        ("parameters, millions", [("ours", "params", 1e6), ("printed", "printed_params_m", 1)]),
        (
            "forward operations, GFLOP",
            [
                ("ours", "flops_paper", GIGA),
                ("ours, all operations", "flops_full", GIGA),
                ("printed", "printed_gflops", 1),
            ],
        ),
    )
    marks = {
        "ours": ("o", "tab:blue"),
        "ours, all operations": ("|", "tab:orange"),
        "printed": ("x", "black"),
    }
    with picture(path, 1, 2, figsize=(PAGE_INCHES, 3.6), sharey=True) as axes:
        for axis, (title, columns) in zip(axes, panels, strict=True):
            for name, key, unit in columns:
                if any(row[key] is None for row in rows):
                    continue  # the paper prints another setting
                mark, colour = marks[name]
                values = [row[key] / unit for row in rows]
                axis.plot(values, range(len(rows)), mark, color=colour, markersize=9, label=name)
            axis.set(xlabel=title, xscale="log")
            axis.grid(alpha=0.3)
        axes[0].set_yticks(range(len(rows)), labels)
        axes[0].invert_yaxis()
        legend_above(axes)
        message(
            axes[0],
            f"{_matches(result)} Values are counted from the program, not measured. The paper counts layers; "
            "the orange line counts products of activations with activations, too.",
        )


def compare(result: dict[str, Any]) -> list[Comparison]:
    """Set the cells of Table 1, then the ratios of the text, beside ours."""
    found = []
    for row in result["rows"]:
        where = f"{row['model']}, {row['module'].replace('_', ' ')}"
        found.append(Comparison(f"{where}, million parameters", row["printed_params_m"], row["params"] / 1e6))
        if row["printed_gflops"] is not None:
            found.append(
                Comparison(f"{where}, forward GFLOPs", row["printed_gflops"], row["flops_paper"] / GIGA)
            )
    for model, ratio in result["ratios"].items():
        over = f"{model}, Transformer over CNN"
        found += [
            Comparison(f"{over}, parameters", ratio["printed_params"], ratio["params"], 1),
            Comparison(f"{over}, FLOPs", ratio["printed_flops"], ratio["flops"]),
        ]
    return found


def meaning(result: dict[str, Any]) -> str:
    """Say what Table 1 means."""
    totals = {row["model"]: row for row in result["rows"] if row["module"] == "total"}
    more = {model: row["flops_full"] / row["flops_paper"] - 1 for model, row in totals.items()}
    cells = _printed_cells(result)
    same = sum(cell.agrees for cell in cells)
    return (
        f"{same} of {len(cells)} cells come out as printed, so this is the model that the paper measured. "
        "Its counter prices layers and does not see attention's products of activations with "
        f"activations: with them a forward pass takes {more['base']:.1%} (base) and {more['large']:.1%} "
        f"(large) more at {result['seconds']:g} s. The other cells: base's totals are the sums of its "
        "rounded rows, large's total of FLOPs contradicts its own rows, and one cell is rounded "
        "otherwise."
    )


ITEM = Item("table1", "Table 1: parameters and FLOPs by module", ("reproduce", "table1"), compare, meaning)
