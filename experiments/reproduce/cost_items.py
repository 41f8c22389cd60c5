"""Costs that the paper prints beside ours: Tables 1 and 2, Figures 2, 3 and 4."""

import statistics
from typing import Any

from experiments import paper
from experiments.reproduce.comparison import Comparison

SECONDS = f"{paper.TABLE_2_SECONDS:g} s"
ABOUT_LINEAR, LITTLE_CHANGE = 0.05, 0.25  # shares up to which the paper's words are said to hold


def table1(result: dict[str, Any]) -> list[Comparison]:
    """Table 1: values side by side."""
    found = []
    for row in result["rows"]:
        where = f"{row['model']}, {row['module'].replace('_', ' ')}"
        found += [
            Comparison(f"{where}, million parameters", row["printed_params_m"], row["params"] / 1e6),
            Comparison(f"{where}, forward GFLOPs", row["printed_gflops"], row["flops_paper"] / 1e9),
        ]
    for model, ratio in result["ratios"].items():
        found += [
            Comparison(
                f"{model}, Transformer over CNN, parameters", ratio["printed_params"], ratio["params"], 1
            ),
            Comparison(f"{model}, Transformer over CNN, FLOPs", ratio["printed_flops"], ratio["flops"]),
        ]
    return found


def table1_means(result: dict[str, Any]) -> str:
    """Table 1: what they mean."""
    cells = table1(result)[: 2 * len(result["rows"])]
    same = sum(cell.difference == "as printed" for cell in cells)
    totals = {row["model"]: row for row in result["rows"] if row["module"] == "total"}
    more = {model: row["flops_full"] / row["flops_paper"] - 1 for model, row in totals.items()}
    return (
        f"{same} of {len(cells)} cells come out as printed, so this is the model that the paper measured. Its counter "
        f"prices layers and does not see attention's products of activations with activations: with them a "
        f"forward pass takes {more['base']:.1%} (base) and {more['large']:.1%} (large) more at {SECONDS}. Of the "
        "others, base's totals are the sums of its rounded rows, large's total of FLOPs contradicts its own rows, and one cell is rounded otherwise."
    )


def table2(result: dict[str, Any]) -> list[Comparison]:
    """Table 2: values side by side."""
    found = []
    for row in result["rows"]:
        what = f"{row['title']}: {row['cell']}, seconds"
        measured = statistics.median(row["measured"]) if row["measured"] else None
        if row["printed"] == paper.OOM:
            ours = paper.OOM if row["verdict"] == "too large" else row["verdict"]
            found.append(Comparison(what, paper.OOM, ours))
        elif measured is not None:
            found.append(Comparison(f"{what}, measured", row["printed"], measured))
        elif row["modelled"] is None:
            found.append(Comparison(what, row["printed"], row["printed"], verdict="calibrates the model"))
        else:
            found.append(Comparison(what, row["printed"], row["modelled"]))
    for device, gain in result["printed_sequence_gains"].items():
        title = next(row["title"] for row in result["rows"] if row["device"] == device)
        ours = 100 * result["sequence_gains"][device]
        found.append(
            Comparison(
                f"{title}: time a sequence saves from batch 1 to 4, per cent",
                100 * gain,
                ours,
                0,
                verdict="from its own seconds",
            )
        )
    return found


def table2_means(result: dict[str, Any]) -> str:
    """Table 2: what they mean."""
    errors, memory = result["errors"]["model"], result["memory"]
    return (
        "No board is here, so its seconds are predicted: from the other devices' cells and one cell of its own, by "
        f"operations, bytes and a data sheet. Over {errors['cells']} cells the median error is {errors['median']:.0%}, the largest "
        f"{errors['largest']:.0%}. Compilers' plans predict {memory['printed_oom_predicted']} of {memory['printed_oom']} printed OOM cells, "
        f"and call {memory['timed_predicted_oom']} of the {memory['timed']} timed ones too large; that is with the memory of the class that the paper puts a board in. A board's own times take the model's "
        "place once `runner.py` has been there (docs/boards.md)."
    )


def fig2(result: dict[str, Any]) -> list[Comparison]:
    """Figure 2: values side by side."""
    found = []
    for setting in result["settings"]:
        where = f"{setting['model']}, batch {setting['batch']} x {setting['seconds']:g} s"
        for name, size in setting["accountings"].items():
            found.append(
                Comparison(
                    f"{where}, GB: {_ACCOUNTINGS.get(name, name)}", setting["printed_bytes"] / 1e9, size / 1e9
                )
            )
    return found


_ACCOUNTINGS = {
    "autograd": "tensors that torch's autograd keeps, on CPU",
    "autograd, activations": "the same without parameters",
    "autograd, CUDA": "the same on a GPU",
    "autograd, linear part": "the same without tensors of frames x frames",
    "residuals": "what jax keeps for the backward pass",
    "xla": "XLA's plan of the whole step",
}


def fig2_means(result: dict[str, Any]) -> str:
    """Figure 2: what they mean."""
    closest = result["closest"]
    worst = max(abs(error) for error in closest["errors"][closest["name"]])
    plan = [setting["accountings"]["xla"] / 1e9 for setting in result["settings"]]
    small, large = (_shares(setting["layers"]) for setting in result["settings"])
    return (
        f"The paper does not name its tool. Of the ways to count, '{_ACCOUNTINGS[closest['name']]}' comes closest to both "
        f"printed peaks (within {worst:.0%}), which suggests that its counter left attention's matrices out. "
        f"The whole step as XLA plans it, with gradients and AdamW's state, takes {plan[0]:.1f} and {plan[1]:.1f} GB. "
        f"Of what autograd keeps, transformer layers are {small['layers_']:.0%} and {large['layers_']:.0%}, the first three convolutions "
        f"{small['conv_layers_']:.0%} and {large['conv_layers_']:.0%}, losses and draws (gathered negatives) {small['losses']:.0%} and {large['losses']:.0%}; "
        "most of it need not be kept: see `w2v-jax reproduce frontier`."
    )


def _shares(layers: list[dict[str, Any]]) -> dict[str, float]:
    """Of what autograd keeps: transformer layers, the CNN's first three, losses and draws."""
    whole = sum(row["autograd_bytes"] for row in layers)
    parts = {
        "layers_": [row for row in layers if row["layer"].startswith("layers_")],
        "conv_layers_": [
            row for row in layers if row["layer"] in ("conv_layers_0", "conv_layers_1", "conv_layers_2")
        ],
        "losses": [row for row in layers if row["layer"] == "losses and draws"],
    }
    return {name: sum(row["autograd_bytes"] for row in rows) / whole for name, rows in parts.items()}


def fig3(result: dict[str, Any]) -> list[Comparison]:
    """Figure 3: values side by side."""
    found = []
    for model, fits in result["fits"].items():
        for name, title in (
            ("autograd_bytes", "memory"),
            ("flops_paper", "FLOPs, by the paper's counter"),
            ("flops_full", "FLOPs, all of them"),
        ):
            share = fits[name]["quadratic_share"]
            found.append(
                Comparison(
                    f"{model}: {title}, part that grows with the square of the length, at 30 s",
                    "about none",
                    f"{abs(share):.0%}",
                    verdict="agrees" if abs(share) < ABOUT_LINEAR else "differs",
                )
            )
    return found


def fig3_means(result: dict[str, Any]) -> str:
    """Figure 3: what they mean."""
    base = result["fits"]["base"]
    return (
        "The paper reads memory and FLOPs as growing in proportion to the length. By its own counter FLOPs do. With "
        f"attention's products {base['flops_full']['quadratic_share']:.0%} of base's FLOPs at 30 s grow with the square of the length, and "
        f"{base['autograd_bytes']['quadratic_share']:.0%} of the memory that an eager framework keeps: long clips are dearer than the figure says."
    )


def fig4(result: dict[str, Any]) -> list[Comparison]:
    """Figure 4: values side by side."""
    found = []
    for model in dict.fromkeys(row["model"] for row in result["rows"]):
        for name, title in (
            ("autograd_cuda_bytes", "by the rules of a GPU"),
            ("residual_bytes", "here, bf16 products"),
        ):
            changes = _mixed_changes(result, model, name)
            found.append(
                Comparison(
                    f"{model}: memory of mixed precision over fp32, 1 to 30 s, {title}",
                    "little change",
                    f"{min(changes):+.0%} to {max(changes):+.0%}",
                    verdict="within a quarter" if max(map(abs, changes)) <= LITTLE_CHANGE else "differs",
                )
            )
    return found


def _mixed_changes(result: dict[str, Any], model: str, name: str) -> list[float]:
    rows = [row for row in result["rows"] if row["model"] == model]
    whole = {row["seconds"]: row[name] for row in rows if row["precision"] == "fp32"}
    return [row[name] / whole[row["seconds"]] - 1 for row in rows if row["precision"] != "fp32"]


def fig4_means(result: dict[str, Any]) -> str:
    """Figure 4: what they mean."""
    changes = [
        change
        for model in dict.fromkeys(row["model"] for row in result["rows"])
        for change in _mixed_changes(result, model, "autograd_cuda_bytes")
    ]
    return (
        "Half precision does not halve the memory: norms, softmax and losses stay in fp32, and half copies of inputs and weights "
        f"are kept beside fp32 tensors. By a GPU's rules it changes what is kept by {min(changes):+.0%} to {max(changes):+.0%}, and in "
        f"{sum(change > 0 for change in changes)} of {len(changes)} settings more is kept than in fp32. The paper's words are no number, so that none is called agreement here."
    )
