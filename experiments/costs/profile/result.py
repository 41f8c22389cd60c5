"""Compute the profile of a training step: operations, bytes and seconds as plain numbers."""

import contextlib
import dataclasses
import time
from typing import Any

import jax

from experiments import paper
from experiments.costs.step import measurement, module_costs, round_price, training_step
from experiments.costs.step.training_step import StepSettings
from experiments.process.progress import stage
from experiments.process.provenance import record_provenance
from profiling import targets
from profiling.device import Precision
from profiling.devices import DEVICES
from profiling.timeline import Timeline, compile_with_timeline
from profiling.traffic import Traffic
from profiling.xla import memory_plan, operations
from w2v_jax.platforms import lowering_for

MOST_MOMENTS = 1000  # moments that are kept from a timeline


def profile(
    settings: StepSettings,
    *,
    clients: int,
    local_steps: int,
    device: str | None = None,
    target: str | None = None,
    measure: bool = False,
) -> dict[str, Any]:
    """Compute everything that the report shows.

    Args:
        settings: settings of the step.
        clients: clients of the federated round that is priced.
        local_steps: steps of each of them.
        device: name of the roofline's device; the target, or Jetson Xavier NX, by default.
        target: device to compile for; the backend of this process by default.
        measure: also run the step in a child process.
    """
    started = time.perf_counter()
    config = settings.config
    elsewhere = lowering_for(targets.platform_of(target)) if target else contextlib.nullcontext()
    with elsewhere:
        step = training_step.build(settings)
        stage(f"pricing {settings.describe()}")
        costs = module_costs.step_costs(config, step)
        stage("pricing a round")
        price = round_price.round_price(settings, clients, local_steps)
        stage(f"compiling for {target or jax.default_backend()}")
        compiled = _compile(step, target)
    measured = _measure(settings) if measure else None
    device = device or target or "xavier-nx"
    standing = module_costs.standing_bytes(step)
    total, residual = costs.total, sum(costs.residual_bytes.values())
    eager = _eager_bytes(settings)
    return {
        "settings": dataclasses.asdict(settings),
        "description": settings.describe(),
        "layers": _layer_rows(config, costs, eager["cpu"]),
        "step": dataclasses.asdict(total) | {"flops": total.flops},
        "unpriced": costs.unpriced | price["unpriced"],
        "residual_parts": costs.residual_parts,
        "standing_bytes": standing,
        "accountings": accountings(
            eager,
            module_costs.attention_bytes(config, settings.batch, settings.samples)
            * (settings.precision == "fp32"),
            residual,
            standing["parameters"],
            compiled,
            measured,
        ),
        "printed_bytes": _printed_bytes(settings),
        "compiled": compiled,
        "measured": measured,
        "roofline": roofline(device, settings.precision, total.flops, list(costs.moved.values())),
        "round": price,
        "seconds_taken": time.perf_counter() - started,
        "provenance": record_provenance("profile"),
    }


def _printed_bytes(settings: StepSettings) -> float | None:
    """Look up the memory that the paper prints for these settings."""
    return paper.training_bytes(settings.model, settings.precision, settings.batch, settings.seconds)


def _measure(settings: StepSettings) -> dict[str, Any]:
    """Run the step in a child process."""
    stage("running the step in a child process")
    return measurement.measure(settings)


def _eager_bytes(settings: StepSettings) -> dict[str, dict[str, int]]:
    """Count what an eager framework keeps: backend -> layer -> bytes."""
    mixed = "fp32" if settings.precision == "fp32" else "mixed"
    return {
        backend: module_costs.eager_bytes(settings.config, settings.batch, settings.samples, mixed, backend)
        for backend in ("cpu", "cuda")
    }


def _layer_rows(
    config: Any, costs: module_costs.StepCosts, autograd_bytes: dict[str, int]
) -> list[dict[str, Any]]:
    """List the costs of each layer."""
    return [
        {
            "layer": name,
            "module": module_costs.module_of(name),
            "params": costs.parameter_counts[name],
            "forward": dataclasses.asdict(costs.forward[name]),
            "backward": dataclasses.asdict(costs.backward[name]),
            "moved_bytes": dataclasses.asdict(costs.moved[name]),
            "residual_bytes": costs.residual_bytes[name],
            "autograd_bytes": autograd_bytes[name],
        }
        for name in module_costs.layer_names(config)
    ]


def _compile(step: training_step.TrainingStep, target: str | None) -> dict[str, Any]:
    """Compile the step and read XLA's memory plan, with a timeline where the compiler gives one."""
    started = time.perf_counter()
    timeline, options = None, {}
    if target is None:
        lowered = jax.jit(step.function, donate_argnums=0).lower(*step.arguments)
        try:
            compiled, timeline = compile_with_timeline(lowered)
        except ValueError:  # this backend's compiler gives no live ranges
            compiled = lowered.compile()
    else:
        options = targets.compiler_options(target)
        lowered = targets.lower_for(target, step.function, step.arguments, donate=(0,))
        compiled = targets.compile_lowered(target, lowered)
    plan = memory_plan(compiled)
    try:
        xla_flops = operations(compiled)
    except ValueError:
        xla_flops = None  # CUDA's compiler counts none without a device
    return {
        "xla_flops": xla_flops,
        "target": target,
        "options": options,
        "compile_seconds": time.perf_counter() - started,
        "plan": dataclasses.asdict(plan) | {"total": plan.total},
        "timeline": timeline and _thinned(timeline),
    }


def _thinned(timeline: Timeline) -> dict[str, Any]:
    """Keep about a thousand moments of a timeline, the peak among them."""
    moments = len(timeline.live_bytes)
    every = -(-moments // MOST_MOMENTS)
    kept = sorted({*range(0, moments, every), timeline.peak_moment})
    phases, phase = [], "forward"
    for scope, direction in zip(timeline.scopes, timeline.directions, strict=True):
        # An operation without a scope belongs to the phase before it. The backward pass repeats some forward
        # operations, but the forward pass does not come back.
        if scope:
            optimizing = module_costs.layer_of(scope) == "optimizer"
            phase = "optimizer" if optimizing else "backward" if phase != "forward" else direction
        phases.append(phase)
    return {
        "standing_bytes": timeline.standing_bytes,
        "peak_bytes": timeline.peak_bytes,
        "peak_moment": timeline.peak_moment,
        "moments": kept,
        "live_bytes": [int(timeline.live_bytes[moment]) for moment in kept],
        "phases": [phases[moment] for moment in kept],
        "at_peak": [
            {
                **dataclasses.asdict(row),
                "layer": module_costs.layer_of(row.scope) if row.scope else "(no scope)",
            }
            for row in timeline.at_peak
        ],
    }


def accountings(
    eager: dict[str, dict[str, int]],
    attention: int,
    residual: int,
    parameters: int,
    compiled: dict[str, Any],
    measured: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    """List the ways to account for a step's memory, in bytes.

    Args:
        eager: backend -> layer -> bytes that an eager framework keeps.
        attention: bytes of `eager["cpu"]` in tensors of frames x frames; 0 leaves out the row without them.
        residual: bytes that jax.vjp keeps.
        parameters: bytes of the parameters.
        compiled: result of `_compile`.
        measured: result of `measurement.measure`, or None.
    """
    cpu, cuda = (sum(eager[backend].values()) for backend in ("cpu", "cuda"))
    rows = [
        ("autograd", cpu + parameters, "parameters and the tensors that an eager framework keeps on a CPU"),
        ("autograd, activations", cpu, "the same without parameters"),
        ("autograd, CUDA", cuda + parameters, "the same on a GPU, where dropout noise takes one byte"),
    ]
    if attention:
        linear = cpu - attention + parameters
        rows.append(
            (
                "autograd, linear part",
                linear,
                "autograd without tensors of frames x frames, as with fused attention",
            )
        )
    rows.append(("residuals", residual + parameters, "parameters and the tensors that jax.vjp keeps"))
    plan, target = compiled["plan"]["total"], compiled["target"]
    rows.append(
        (f"plan, {target}", plan, "the compiler's plan for this device, not measured")
        if target
        else ("xla", plan, "the compiled step: arguments, temporaries and results that are not donated")
    )
    if measured is not None:
        rows.append(("measured", measured["peak_bytes"], "peak of a process above its idle memory"))
    return [{"name": name, "bytes": size, "meaning": meaning} for name, size, meaning in rows]


def roofline(name: str, precision: Precision, flops: int, moved: list[Traffic]) -> dict[str, Any]:
    """Compute the least seconds of a step by a device's rates; None where a rate is unknown.

    Args:
        name: name of the device, whose bandwidth is known.
        precision: precision whose peak rate counts.
        flops: operations of the step.
        moved: bytes that each layer moves.
    """
    device = DEVICES[name]
    peak = device.peak_flops.get(precision)
    products, unfused = (sum(getattr(row, name) for row in moved) for name in ("products", "unfused"))
    compute = None if peak is None else flops / peak
    assert device.bytes_per_second is not None
    return {
        "title": device.title,
        "source": device.source,
        "precision": precision,
        "peak_flops": peak,
        "bytes_per_second": device.bytes_per_second,
        "memory_bytes": device.memory_bytes,
        "intensity_fused": flops / products,
        "intensity_unfused": flops / unfused,
        "compute_seconds": compute,
        "fused_seconds": products / device.bytes_per_second,
        "unfused_seconds": unfused / device.bytes_per_second,
        "device": name,
    }
