"""`w2v-jax bench utilisation`: how much of a device's rate a step reaches, and where the rest goes."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.files import replace_file, write_json
from experiments.process.provenance import record_provenance


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchUtilisationArguments:
    """Seconds of a training step of some clients side by side, operations a second, and both by module.

    example: w2v-jax bench utilisation --out bench/utilisation --model base --precision bf16 --clients 8
    """

    out: Path
    """Folder for utilisation.json, utilisation.md and utilisation.png."""
    model: str = "base"
    """Model preset."""
    clients: tuple[int, ...] = (1, 8)
    """Clients side by side, each with a model and an optimizer of its own: one table for each number."""
    batch: int = 4
    """Utterances of a client's batch."""
    seconds: float = 5.5
    """Length of an utterance."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Of products' operands."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Local optimizer."""
    forms: tuple[Literal["lax", "product"], ...] = ()
    """Forms of convolutions. Default: what this project would choose for so many clients."""
    dropout: bool = False
    """Keep the preset's dropout and layer drop; without them the work is that of `bench rounds`."""
    repeats: int = 20
    """Steps that are timed, after two that are not."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(BenchUtilisationArguments, argv, "w2v-jax bench utilisation")
    from w2v_jax.config import PRESETS

    arguments.check_choice("--model", options.model, PRESETS)
    arguments.check_at_least(1, options, "clients", "batch", "repeats")
    if not 0.5 <= options.seconds <= 60:
        raise UsageError(f"--seconds must be between 0.5 and 60, got {options.seconds:g}")
    xla_flags.configure_xla(1, model=options.model, precision=options.precision)
    from experiments.bench import utilisation_report
    from w2v_jax.model.convolutions import form_for_clients

    options.out.mkdir(parents=True, exist_ok=True)
    peak, bandwidth, source = rates(options.precision)
    rows = []
    for clients in options.clients:
        for form in options.forms or (form_for_clients(clients),):
            rows.append(measure(options, clients, form, peak, bandwidth))
            print(utilisation_report.sentence(rows[-1]), flush=True)
            result = {
                "model": options.model,
                "batch": options.batch,
                "seconds": options.seconds,
                "precision": options.precision,
                "optimizer": options.optimizer,
                "dropout": options.dropout,
                "peak_flops": peak,
                "bytes_per_second": bandwidth,
                "rates": source,
                "rows": rows,
                "provenance": record_provenance("bench utilisation", 0),
            }
            write_json(options.out / "utilisation.json", result)
            replace_file(options.out / "utilisation.md", utilisation_report.markdown(result))
            utilisation_report.draw(result, options.out / "utilisation.png")
    print(f"written: {options.out / 'utilisation.md'}")


def rates(precision: str) -> tuple[float | None, float | None, str]:
    """(operations a second, bytes a second, source) of this device: a data sheet's, or measured on a CPU."""
    import jax

    from profiling import this_machine
    from profiling.devices import DEVICES, named_like

    device = jax.devices()[0]
    if device.platform == "cpu":
        known = this_machine.this_machine()
    elif (name := named_like(device.device_kind)) is not None:
        known = DEVICES[name]
    else:
        return None, None, f"{device.device_kind} is not in the catalogue"
    peak = {name: rate for name, rate in known.peak_flops.items() if name == precision}
    return peak.get(precision), known.bytes_per_second, known.source


def measure(
    options: BenchUtilisationArguments,
    clients: int,
    form: Literal["lax", "product"],
    peak: float | None,
    bandwidth: float | None,
) -> dict[str, Any]:
    """Time, operations and device time by module of one step of some clients."""
    import jax
    import jax.numpy as jnp

    from experiments.costs.step import training_step
    from profiling import flops, kernels
    from profiling.traffic import traffic
    from profiling.xla import memory_plan
    from w2v_jax import platforms

    settings = training_step.StepSettings(
        model=options.model,
        seconds=options.seconds,
        batch=options.batch,
        precision=options.precision,
        optimizer=options.optimizer,
    )
    config = settings.config.replace(convolution_form=form)
    if not options.dropout:
        config = config.without_dropout()
    step = training_step.build(settings, config)

    def over_clients(step, state, batch, keys, index):
        if clients == 1:
            return step.function(state, batch, keys, index)
        return jax.vmap(step.function, (0, 0, 0, None))(state, batch, keys, index)

    samples = settings.samples
    rng = np.random.default_rng(0)
    leading = () if clients == 1 else (clients,)
    keys = jax.random.split(jax.random.key(0), clients)
    begin = jax.jit(step.begin if clients == 1 else jax.vmap(step.begin))
    state = begin(keys[0] if clients == 1 else keys)
    shape = (*leading, options.batch)
    batch = step.arguments[1]._make(
        jnp.asarray(value)
        for value in (
            (0.1 * rng.standard_normal((*shape, samples))).astype(np.float32),
            np.full(shape, samples, np.int32),
            np.broadcast_to(np.arange(options.batch, dtype=np.uint32), shape),
        )
    )
    # An update reads gradients and state, and writes state.
    optimizer_bytes = 2 * training_step.tree_bytes(state) + training_step.tree_bytes(state[0])
    given = (batch, keys[0] if clients == 1 else keys, jnp.int32(0))
    # Operations are the model's: convolutions as they are, whatever form they take on a device.
    with platforms.lowering_for("cpu"):
        plain = training_step.build(settings, config.replace(convolution_form="lax"))
        priced = functools.partial(over_clients, plain)
        report = flops.count(priced, state, *given)
        moved = traffic(priced, state, *given)
    lowered = jax.jit(functools.partial(over_clients, step), donate_argnums=0).lower(state, *given)
    started = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - started
    seconds = []
    for repeat in range(2 + options.repeats):
        started = time.perf_counter()
        state, loss = jax.block_until_ready(compiled(state, *given))
        if repeat > 1:
            seconds.append(time.perf_counter() - started)
    where = kernels.device_time(lowered, compiled, (state, *given))
    median = float(np.median(seconds))
    products = report.total.products
    return {
        "clients": clients,
        "form": form,
        "seconds": median,
        "seconds_p10": float(np.percentile(seconds, 10)),
        "seconds_p90": float(np.percentile(seconds, 90)),
        "products": products,
        "utilisation": products / median / peak if peak else None,
        "audio_seconds_per_second": clients * options.batch * options.seconds / median,
        "compile_seconds": compile_seconds,
        "planned_bytes": memory_plan(compiled).total,
        "finite": bool(jnp.isfinite(loss).all()),
        "busy_seconds": where.busy_seconds,
        "unattributed_seconds": where.unattributed_seconds,
        "modules": by_module(where, report, moved, peak, bandwidth, optimizer_bytes),
        "kernels": [dataclasses.asdict(kernel) for kernel in where.kernels[:40]],
    }


def by_module(
    where: Any, report: Any, moved: Any, peak: float | None, bandwidth: float | None, optimizer_bytes: int
) -> list[dict[str, Any]]:
    """Device time, operations and least time by a roofline of each module, slowest first.

    Args:
        where: DeviceTime.
        report: of operations.
        moved: of traffic. What computes no products costs nothing at best: it can be fused with what does.
        optimizer_bytes: that an update reads and writes at least.
    """
    found: dict[str, dict[str, float]] = {}

    def entry(scope: str) -> dict[str, float]:
        empty = {
            "seconds": 0.0,
            "forward_seconds": 0.0,
            "products": 0,
            "product_bytes": 0,
            "unfused_bytes": 0,
        }
        return found.setdefault(module_of(scope), empty)

    for (scope, direction), seconds in where.by_scope().items():
        entry(scope)["seconds"] += seconds
        entry(scope)["forward_seconds"] += seconds if direction == "forward" else 0.0
    for (scope, _), cost in report.rows.items():
        entry(scope)["products"] += cost.products
    for (scope, _), traffic in moved.rows.items():
        entry(scope)["product_bytes"] += traffic.products
        entry(scope)["unfused_bytes"] += traffic.unfused
    rows = []
    for module, row in found.items():
        least = None
        if peak and bandwidth:
            least_bytes = optimizer_bytes if module == "optimizer" else row["product_bytes"]
            least = max(row["products"] / peak, least_bytes / bandwidth)
        rows.append({"module": module, "roofline_seconds": least, **row})
    return sorted(rows, key=lambda row: -row["seconds"])


def module_of(scope: str) -> str:
    """The module that a scope belongs to, as readers look for it."""
    parts = [
        part for part in scope.split(";")[0].split("/") if "->" not in part and not part.startswith("jit")
    ]
    if parts[:1] == ["Wav2Vec2"]:
        parts = parts[1:] or ["Wav2Vec2"]
    if parts[:2] == ["context_network", "layers"]:
        return "/".join(["transformer", *parts[2:3]])
    if parts[:1] in (["feature_encoder"], ["context_network"]):
        return "/".join(parts[:2])
    return parts[0] if parts and parts[0] else "loss, masks and the rest"
