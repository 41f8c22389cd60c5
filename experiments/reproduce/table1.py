"""`w2v-jax reproduce table1`: parameters and forward FLOPs by module, computed, beside what is printed."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments import paper
from experiments.costs.length_sweep import LONGEST_SECONDS
from experiments.costs.step.paper_convention import module_costs
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.files import replace_file, write_json
from experiments.process.provenance import record_provenance

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
    """Length of the utterance."""
    batch: int = 1
    """Utterances."""


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
    write_json(options.out / "table1.json", result)
    replace_file(options.out / "table1.md", markdown(result))
    draw(rows, options.out / "table1.png")
    print(markdown(result))
    print(f"written: {options.out / 'table1.json'}, table1.md, table1.png")


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Transformer / CNN encoder, in parameters and in FLOPs, beside what the text says."""
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
    """Whether operations were counted at the setting of the printed table."""
    return (setting.seconds, setting.batch) == (paper.TABLE_1_SECONDS, 1)


def agrees(value: float, printed: float) -> bool:
    """Whether a value comes out as it is printed, to two decimals."""
    return f"{value:.2f}" == f"{printed:.2f}"


def markdown(result: dict[str, Any]) -> str:
    """The table for readers."""
    at_printed = result["seconds"] == paper.TABLE_1_SECONDS and result["batch"] == 1
    lines = [
        f"# Table 1: parameters and forward GFLOPs, {result['seconds']} s, batch {result['batch']}",
        "",
        "`paper` prices layers as a counter of modules does, without products of activations with",
        "activations; `full` is everything, taps on padding too. In brackets what is printed.",
        "",
        "| model | module | M parameters | GFLOPs, paper | GFLOPs, full | note |",
        "|---|---|---|---|---|---|",
    ]
    matched = cells = 0
    for row in result["rows"]:
        params, flops = row["params"] / 1e6, row["flops_paper"] / 1e9
        key = row["model"], row["module"]
        kinds = ("params", "flops") if at_printed else ("params",)
        notes = [EXPLANATIONS[(*key, what)] for what in kinds if (*key, what) in EXPLANATIONS]
        if at_printed:
            matched += agrees(params, row["printed_params_m"]) + agrees(flops, row["printed_gflops"])
            cells += 2
        printed = f" ({row['printed_gflops']:.2f})" if at_printed else ""
        cells_of_row = (
            row["model"],
            row["module"].replace("_", " "),
            f"{params:.4f} ({row['printed_params_m']:.2f})",
            f"{flops:.4f}{printed}",
            f"{row['flops_full'] / 1e9:.2f}",
            "; ".join(dict.fromkeys(notes)),
        )
        lines.append(f"| {' | '.join(cells_of_row)} |")
    if at_printed:
        lines += ["", f"{matched} of {cells} cells come out as printed."]
    lines += ["", "Transformer / CNN encoder, as the text has it:", ""]
    for model, row in result["ratios"].items():
        lines.append(
            f"- {model}: {row['params']:.1f} x the parameters ({row['printed_params']}), "
            f"{row['flops']:.2f} x the FLOPs ({row['printed_flops']})"
        )
    provenance = result["provenance"]
    lines += ["", "![table](table1.png)", "", f"`{provenance['command']}`, commit {provenance['commit']}"]
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Parameters and FLOPs by module, both models, ours and printed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    labels = [
        f"{row['model']}\n{row['module'].replace('_', ' ')}" for row in rows if row["module"] != "total"
    ]
    kept = [row for row in rows if row["module"] != "total"]
    columns = (
        ("million parameters", [("ours", "params", 1e6), ("printed", "printed_params_m", 1)]),
        (
            "forward GFLOPs",
            [("paper", "flops_paper", 1e9), ("full", "flops_full", 1e9), ("printed", "printed_gflops", 1)],
        ),
    )
    for axis, (title, bars) in zip(axes, columns, strict=True):
        for place, (name, key, unit) in enumerate(bars):
            at = [index + (place - (len(bars) - 1) / 2) * 0.8 / len(bars) for index in range(len(kept))]
            if any(row[key] is None for row in kept):
                continue  # printed for another setting
            axis.bar(at, [row[key] / unit for row in kept], 0.8 / len(bars), label=name)
        axis.set(title=title)
        axis.set_xticks(range(len(kept)), labels, fontsize=8)
        axis.set_yscale("log")
        axis.grid(alpha=0.3, axis="y")
        axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
