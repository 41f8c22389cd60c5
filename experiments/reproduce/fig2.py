"""`w2v-jax reproduce fig2`: price memory and compute of every layer of base, and of training it."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments import paper
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance
from experiments.report.units import GIGA
from experiments.report.writer import write_report
from experiments.reproduce.comparison import Comparison, Item
from experiments.reproduce.fig2_report import draw, markdown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure2Arguments:
    """Compute Figure 2 for base at batch 4 and 5.5 s, and the text's second figure at batch 8 and 12 s.

    example: w2v-jax reproduce fig2 --out reports/fig2
    """

    out: Path
    """Folder for fig2.json, fig2.md and fig2.png."""
    compiled: bool = True
    """Also compile both steps for this machine, for the accounting `xla` (a minute)."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(Figure2Arguments, argv, "w2v-jax reproduce fig2")
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out} is a file: name a folder")
    options.out.mkdir(parents=True, exist_ok=True)
    xla_flags.configure_xla(1)
    result = {
        "settings": [setting(batch, seconds, options.compiled) for batch, seconds in paper.TRAINING_BYTES],
        "provenance": record_provenance("reproduce fig2"),
    }
    result["closest"] = closest(result["settings"])
    print(write_report(options.out, "fig2", result, markdown, draw))
    print(f"written: {options.out / 'fig2.json'}, fig2.md, fig2.png")


def setting(batch: int, seconds: float, compiled: bool) -> dict[str, Any]:
    """Price base in fp32 at one setting: bytes and operations by layer, bytes by accounting."""
    from experiments.costs.step import module_costs, training_step
    from experiments.process.progress import stage

    settings = training_step.StepSettings(model="base", batch=batch, seconds=seconds)
    config, samples = settings.config, settings.samples
    stage(f"pricing {settings.describe()}")
    step = training_step.build(settings)
    costs = module_costs.step_costs(config, step)
    eager = {
        backend: module_costs.eager_bytes(config, batch, samples, "fp32", backend)
        for backend in ("cpu", "cuda")
    }
    parameters = training_step.tree_bytes(step.parameters)
    kept = sum(eager["cpu"].values())
    rows = {
        "autograd": kept + parameters,
        "autograd, activations": kept,
        "autograd, CUDA": sum(eager["cuda"].values()) + parameters,
        LINEAR_PART: kept + parameters - module_costs.attention_bytes(config, batch, samples),
        "residuals": sum(costs.residual_bytes.values()) + parameters,
    }
    if compiled:
        from profiling.xla import memory_plan

        stage(f"compiling {settings.describe()}")
        rows["xla"] = memory_plan(step.compile()).total
    by_module = paper_flops(config, samples, batch)
    reached, layers = parameters, []
    for name in module_costs.layer_names(config):
        reached += eager["cpu"][name]
        layers.append(
            {
                "layer": name,
                "module": module_costs.module_of(name),
                "autograd_bytes": eager["cpu"][name],
                "accumulated_bytes": reached,
                "residual_bytes": costs.residual_bytes[name],
                "flops_paper": by_module[name],
                "flops_forward": costs.forward[name].flops,
                "flops_backward": costs.backward[name].flops,
            }
        )
    return {
        "model": "base",
        "batch": batch,
        "seconds": seconds,
        "printed_bytes": paper.TRAINING_BYTES[batch, seconds],
        "parameters_bytes": parameters,
        "accountings": rows,
        "layers": layers,
    }


def paper_flops(config: Any, samples: int, batch: int) -> dict[str, int]:
    """Count forward operations by layer under the convention `paper`: linear layers and their biases."""
    import jax
    import jax.numpy as jnp

    from experiments.costs.step.module_costs import by_layer
    from profiling.module_counter import count_modules
    from w2v_jax.objective.pretraining import bind_model

    init, apply = bind_model(config.replace(convolution_form="lax"))
    layers = count_modules(
        apply,
        jax.eval_shape(init, jax.random.key(0)),
        jax.ShapeDtypeStruct((batch, samples), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
        jax.ShapeDtypeStruct((batch, config.num_frames(samples)), jnp.bool_),
    )
    return by_layer(((scope, cost.products + cost.linear_bias) for scope, cost in layers.items()), config, 0)


def closest(settings: list[dict[str, Any]]) -> dict[str, Any]:
    """Find the accounting whose worse error over the printed figures is smallest; give the errors of all."""
    errors = {
        name: [row["accountings"][name] / row["printed_bytes"] - 1 for row in settings]
        for name in settings[0]["accountings"]
    }
    return {"name": min(errors, key=lambda name: max(map(abs, errors[name]))), "errors": errors}


LINEAR_PART = "autograd, linear part"
ACCOUNTINGS = {
    "autograd": "tensors that torch's autograd keeps, on CPU",
    "autograd, activations": "autograd's tensors without parameters",
    "autograd, CUDA": "autograd's tensors on a GPU",
    LINEAR_PART: "autograd's tensors without those of frames x frames",
    "residuals": "what jax keeps for the backward pass",
    "xla": "XLA's plan of the whole step",
}


def compare(result: dict[str, Any]) -> list[Comparison]:
    """Set every accounting beside the printed bytes, at both settings."""
    found = []
    for setting in result["settings"]:
        where = f"{setting['model']}, batch {setting['batch']} x {setting['seconds']:g} s"
        for name, size in setting["accountings"].items():
            found.append(
                Comparison(
                    f"{where}, GB: {ACCOUNTINGS.get(name, name)}",
                    setting["printed_bytes"] / GIGA,
                    size / GIGA,
                )
            )
    return found


def meaning(result: dict[str, Any]) -> str:
    """Say what Figure 2 means."""
    closest = result["closest"]
    worst = max(abs(error) for error in closest["errors"][closest["name"]])
    plans = [setting["accountings"].get("xla") for setting in result["settings"]]
    planned = (
        f" The whole step as XLA plans it, with gradients and AdamW's state, takes {plans[0] / GIGA:.1f} and "
        f"{plans[1] / GIGA:.1f} GB."
        if all(plans)
        else ""
    )
    suggests = (
        ", which suggests that its counter left attention's matrices out"
        if closest["name"] == LINEAR_PART
        else ""
    )
    small, large = (_shares(setting["layers"]) for setting in result["settings"])
    return (
        f"The paper does not name its tool. Of the ways to count, '{ACCOUNTINGS[closest['name']]}' comes "
        f"closest to both printed peaks (within {worst:.0%}){suggests}.{planned} Shares of what autograd "
        f"keeps, at batch 4 x 5.5 s and at batch 8 x 12 s: transformer layers {small['layers_']:.0%} and "
        f"{large['layers_']:.0%}, the first three convolutions {small['conv_layers_']:.0%} and "
        f"{large['conv_layers_']:.0%}, losses and draws (gathered negatives) {small['losses']:.0%} and "
        f"{large['losses']:.0%}. Most of it need not be kept: see `w2v-jax reproduce frontier`."
    )


def _shares(layers: list[dict[str, Any]]) -> dict[str, float]:
    """Divide what autograd keeps: shares of transformer layers, the CNN's first three, losses and draws."""
    whole = sum(row["autograd_bytes"] for row in layers)
    parts = {
        "layers_": [row for row in layers if row["layer"].startswith("layers_")],
        "conv_layers_": [
            row for row in layers if row["layer"] in ("conv_layers_0", "conv_layers_1", "conv_layers_2")
        ],
        "losses": [row for row in layers if row["layer"] == "losses and draws"],
    }
    return {name: sum(row["autograd_bytes"] for row in rows) / whole for name, rows in parts.items()}


ITEM = Item("fig2", "Figure 2: memory and compute by layer", ("reproduce", "fig2"), compare, meaning)
