"""`w2v-jax bench utilisation`: the share of a device's rate that a training step reaches, and its modules."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchUtilisationArguments:
    """Time a training step of some clients side by side, and report its operations a second by module.

    example: w2v-jax bench utilisation --out bench/utilisation --model base --precision bf16 --clients 8
    """

    out: Path
    """Folder for utilisation.json, utilisation.md and utilisation.png."""
    model: str = "base"
    """Model preset."""
    clients: tuple[int, ...] = (1, 8)
    """Numbers of clients that train side by side, each with a model and an optimizer of its own. Each number
    gets a table."""
    batch: int = 4
    """Utterances in a batch of a client."""
    seconds: float = 5.5
    """Length of each utterance, in seconds."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16 rounds the operands of matrix products; everything else stays fp32."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Optimizer of a client."""
    forms: tuple[Literal["lax", "product"], ...] = ()
    """Forms of convolutions. Default: the form that this project chooses for the number of clients."""
    keep_dropout: bool = False
    """Keep the preset's dropout and layer drop. Without them, the work equals that of `bench rounds`."""
    repeats: int = 20
    """Timed steps, after two steps that are not timed."""


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
    from experiments.report.writer import write_report
    from w2v_jax.model.convolutions import form_for_clients

    options.out.mkdir(parents=True, exist_ok=True)
    rates = device_rates(options.precision)
    rows = []
    for clients in options.clients:
        for form in options.forms or (form_for_clients(clients),):
            rows.append(measure(options, clients, form, rates))
            print(utilisation_report.sentence(rows[-1]), flush=True)
            result = {
                "model": options.model,
                "batch": options.batch,
                "seconds": options.seconds,
                "precision": options.precision,
                "optimizer": options.optimizer,
                "dropout": options.keep_dropout,
                "peak_flops": rates.peak_flops,
                "bytes_per_second": rates.bytes_per_second,
                "rates": rates.source,
                "rows": rows,
                "provenance": record_provenance("bench utilisation", 0),
            }
            write_report(
                options.out, "utilisation", result, utilisation_report.markdown, utilisation_report.draw
            )
    print(f"written: {options.out / 'utilisation.md'}")


class Rates(NamedTuple):
    """Rates of a device; None where they are not known.

    Attributes:
        peak_flops: operations a second.
        bytes_per_second: memory bandwidth.
        source: source of the figures.
    """

    peak_flops: float | None
    bytes_per_second: float | None
    source: str


def device_rates(precision: str) -> Rates:
    """Look up this device's rates in a data sheet, or measure those of a CPU."""
    import jax

    from profiling import this_machine
    from profiling.devices import DEVICES, named_like

    device = jax.devices()[0]
    if device.platform == "cpu":
        known = this_machine.this_machine()
    elif (name := named_like(device.device_kind)) is not None:
        known = DEVICES[name]
    else:
        return Rates(None, None, f"{device.device_kind} is not in the catalogue")
    peak = {name: rate for name, rate in known.peak_flops.items() if name == precision}
    return Rates(peak.get(precision), known.bytes_per_second, known.source)


def over_clients(step: Any, clients: int) -> Callable[..., Any]:
    """Return a step of some clients side by side: their states, batches and keys, and one step number."""
    import jax

    return step.function if clients == 1 else jax.vmap(step.function, (0, 0, 0, None))


def draw_arguments(step: Any, clients: int, batch: int, samples: int) -> tuple[Any, tuple[Any, ...]]:
    """Draw the first states of some clients, and their batches of noise, keys and step number."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0), clients)
    keys = keys[0] if clients == 1 else keys
    state = jax.jit(step.begin if clients == 1 else jax.vmap(step.begin))(keys)
    shape = (batch,) if clients == 1 else (clients, batch)
    noise = (0.1 * np.random.default_rng(0).standard_normal((*shape, samples))).astype(np.float32)
    lengths = np.full(shape, samples, np.int32)
    utterances = np.broadcast_to(np.arange(batch, dtype=np.uint32), shape)
    batches = step.arguments[1]._make(jnp.asarray(value) for value in (noise, lengths, utterances))
    return state, (batches, keys, jnp.int32(0))


def measure(
    options: BenchUtilisationArguments, clients: int, form: Literal["lax", "product"], rates: Rates
) -> dict[str, Any]:
    """Measure time, operations and device time by module of one step of some clients."""
    import jax
    import jax.numpy as jnp

    from experiments.costs.step import training_step
    from profiling import kernels
    from profiling.xla import memory_plan

    settings = training_step.StepSettings(
        model=options.model,
        seconds=options.seconds,
        batch=options.batch,
        precision=options.precision,
        optimizer=options.optimizer,
    )
    config = settings.config.replace(convolution_form=form)
    config = config if options.keep_dropout else config.without_dropout()
    step = training_step.build(settings, config)
    state, given = draw_arguments(step, clients, options.batch, settings.samples)
    # An update reads gradients and state, and writes state.
    optimizer_bytes = 2 * training_step.tree_bytes(state) + training_step.tree_bytes(state[0])
    report, moved = price(settings, config, clients, (state, *given))
    lowered = jax.jit(over_clients(step, clients), donate_argnums=0).lower(state, *given)
    started = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - started
    seconds = []
    for repeat in range(2 + options.repeats):
        started = time.perf_counter()
        state, loss = jax.block_until_ready(compiled(state, *given))
        if repeat > 1:
            seconds.append(time.perf_counter() - started)
    times = kernels.device_time(lowered, compiled, (state, *given))
    median = float(np.median(seconds))
    products = report.total.products
    return {
        "clients": clients,
        "form": form,
        "seconds": median,
        "seconds_p10": float(np.percentile(seconds, 10)),
        "seconds_p90": float(np.percentile(seconds, 90)),
        "products": products,
        "utilisation": products / median / rates.peak_flops if rates.peak_flops else None,
        "audio_seconds_per_second": clients * options.batch * options.seconds / median,
        "compile_seconds": compile_seconds,
        "planned_bytes": memory_plan(compiled).total,
        "finite": bool(jnp.isfinite(loss).all()),
        "busy_seconds": times.busy_seconds,
        "unattributed_seconds": times.unattributed_seconds,
        "modules": by_module(times, report, moved, rates, optimizer_bytes),
        "kernels": [dataclasses.asdict(kernel) for kernel in times.kernels[:40]],
    }


def price(settings: Any, config: Any, clients: int, given: tuple[Any, ...]) -> tuple[Any, Any]:
    """Count operations and traffic of the model with plain convolutions, whatever form the device computes.

    Returns:
        flops.Report and traffic.TrafficReport of a step of all clients.
    """
    from experiments.costs.step import training_step
    from profiling import flops
    from profiling.traffic import traffic
    from w2v_jax import platforms

    with platforms.lowering_for("cpu"):
        plain = over_clients(training_step.build(settings, config.replace(convolution_form="lax")), clients)
        return flops.count(plain, *given), traffic(plain, *given)


def by_module(
    times: Any, report: Any, moved: Any, rates: Rates, optimizer_bytes: int
) -> list[dict[str, Any]]:
    """Tabulate device time, operations and least time by a roofline of each module, slowest first.

    Args:
        times: profiling.kernels.DeviceTime.
        report: profiling.flops.Report.
        moved: profiling.traffic.TrafficReport. A module without products costs nothing at best, because it
            can be fused with products.
        rates: rates of the device.
        optimizer_bytes: bytes that an update reads and writes at least.
    """
    found: dict[str, dict[str, float]] = {}
    zero: dict[str, float] = dict.fromkeys(("seconds", "forward_seconds"), 0.0)
    zero |= dict.fromkeys(("products", "product_bytes", "unfused_bytes"), 0)

    def entry(scope: str) -> dict[str, float]:
        return found.setdefault(module_of(scope), dict(zero))

    for (scope, direction), seconds in times.by_scope().items():
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
        if rates.peak_flops and rates.bytes_per_second:
            least_bytes = optimizer_bytes if module == "optimizer" else row["product_bytes"]
            least = max(row["products"] / rates.peak_flops, least_bytes / rates.bytes_per_second)
        rows.append({"module": module, "roofline_seconds": least, **row})
    return sorted(rows, key=lambda row: -row["seconds"])


def module_of(scope: str) -> str:
    """Return the module that a scope belongs to, by the name that readers know."""
    parts = [
        part for part in scope.split(";")[0].split("/") if "->" not in part and not part.startswith("jit")
    ]
    if parts[:1] in (["Wav2Vec2"], ["BestRQ"]):
        parts = parts[1:] or parts
    if parts[:2] == ["context_network", "layers"]:
        return "/".join(["transformer", *parts[2:3]])
    if parts[:1] in (["feature_encoder"], ["context_network"]):
        return "/".join(parts[:2])
    return parts[0] if parts and parts[0] else "loss, masks and the rest"
