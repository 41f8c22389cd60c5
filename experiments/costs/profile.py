"""`w2v-jax profile`: where the operations and the memory of a training step go."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

from experiments import paper
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.files import replace_file, write_json
from experiments.process.provenance import record_provenance
from w2v_jax.memory_methods import names_of

Model = Literal["tiny", "base", "large", "large-lv60"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileArguments:
    """Price a training step and a federated round; traced and compiled, and run only with --measure.

    example: w2v-jax profile --model base --seconds 5.5 --batch 4 --out reports/profile
    """

    model: Model = "base"
    """Preset."""
    seconds: float = 5.5
    """Length of each utterance."""
    batch: int = 4
    """Utterances in a batch."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of products; activations and the rest stay fp32. fp16 scales its loss."""
    method: str = "plain"
    """How gradients are computed: names with commas between, see w2v-jax bench memory --list. exact: all that
    takes less memory and changes no gradient."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The client's optimizer."""
    clients: int = 10
    """Clients of the federated round that is priced."""
    local_steps: int = 25
    """Steps of each client in that round."""
    device: str | None = None
    """Device of the roofline. Default: the target, else xavier-nx, the paper's typical board."""
    target: str | None = None
    """Compile for a device that is not here, and report the compiler's plan for it."""
    measure: bool = False
    """Also run the step in a process of its own: real peak memory and seconds."""
    out: Path = Path("runs/profile")
    """Folder for profile.json, profile.md and PNGs."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(ProfileArguments, argv, "w2v-jax profile")
    _check(options)
    from profiling import targets

    if options.target is not None:
        targets.prepare_environment()
    options.out.mkdir(parents=True, exist_ok=True)
    xla_flags.configure_xla(1)
    from experiments.costs import profile_report

    result = profile(options)
    write_json(options.out / "profile.json", result)
    pictures = profile_report.draw(result, options.out)
    text = profile_report.markdown(result)
    replace_file(options.out / "profile.md", text)
    print(text)
    print(f"written: {options.out / 'profile.json'}, {', '.join(['profile.md', *pictures])}")


def _check(options: ProfileArguments) -> None:
    """Refuse what cannot be profiled before anything heavy is imported.

    Raises:
        UsageError: in one line.
    """
    from profiling import targets
    from profiling.devices import DEVICES
    from w2v_jax.config import PRESETS, SAMPLE_RATE_HZ

    with arguments.blaming("--method"):
        names_of(options.method)
    arguments.check_at_least(1, options, "batch", "clients", "local_steps")
    config = PRESETS[options.model]
    shortest = config.receptive_field_samples / SAMPLE_RATE_HZ
    if not shortest <= options.seconds <= 3600:
        raise UsageError(f"--seconds must be between {shortest:g} and 3600, got {options.seconds:g}")
    if options.device is not None:
        arguments.check_choice("--device", options.device, DEVICES)
    if options.device is not None and DEVICES[options.device].bytes_per_second is None:
        raise UsageError(
            f"nobody publishes the memory bandwidth of {options.device}: no roofline can be drawn"
        )
    if options.target is not None:
        arguments.check_choice("--target", options.target, targets.TARGETS)
        if (absent := targets.missing(options.target)) is not None:
            raise UsageError(absent)
        if options.measure:
            raise UsageError("--measure runs the step here, --target compiles for elsewhere: choose one")


def profile(options: ProfileArguments) -> dict[str, Any]:
    """Everything that the report shows, as plain numbers: operations, bytes, seconds."""
    import jax

    from experiments.costs.step import measurement as step_measurement
    from experiments.costs.step import module_costs, round_price, training_step
    from experiments.process.progress import stage
    from profiling import targets
    from profiling.devices import DEVICES
    from w2v_jax.platforms import lowering_for

    started = time.perf_counter()
    settings = training_step.StepSettings(
        **{
            field.name: getattr(options, field.name)
            for field in dataclasses.fields(training_step.StepSettings)
        }
    )
    config, target = settings.config, options.target
    elsewhere = lowering_for(targets.platform_of(target)) if target else contextlib.nullcontext()
    with elsewhere:
        step = training_step.build(settings)
        stage(f"pricing {settings.describe()}")
        costs = module_costs.step_costs(config, step)
        stage("pricing a round")
        price = round_price.round_price(settings, options.clients, options.local_steps)
        stage(f"compiling for {target or jax.default_backend()}")
        compiled = _compile(step, target)
    mixed = "fp32" if options.precision == "fp32" else "mixed"
    eager = {
        backend: module_costs.eager_bytes(config, settings.batch, settings.samples, mixed, backend)
        for backend in ("cpu", "cuda")
    }
    measured = None
    if options.measure:
        stage("running the step in a process of its own")
        measured = step_measurement.measure(settings)
    device = options.device or target or "xavier-nx"
    standing = module_costs.standing_bytes(step)
    total = costs.total
    return {
        "settings": dataclasses.asdict(settings),
        "description": settings.describe(),
        "layers": [
            {
                "layer": name,
                "module": module_costs.module_of(name),
                "params": costs.parameter_counts[name],
                "forward": dataclasses.asdict(costs.forward[name]),
                "backward": dataclasses.asdict(costs.backward[name]),
                "moved_bytes": dataclasses.asdict(costs.moved[name]),
                "residual_bytes": costs.residual_bytes[name],
                "autograd_bytes": eager["cpu"][name],
            }
            for name in module_costs.layer_names(config)
        ],
        "step": dataclasses.asdict(total) | {"flops": total.flops},
        "unpriced": costs.unpriced | price["unpriced"],
        "residual_parts": costs.residual_parts,
        "standing_bytes": standing,
        "accountings": accountings(
            eager,
            module_costs.attention_bytes(config, settings.batch, settings.samples) * (mixed == "fp32"),
            sum(costs.residual_bytes.values()),
            standing["parameters"],
            compiled,
            measured,
        ),
        "printed_bytes": paper.training_bytes(
            options.model, options.precision, options.batch, options.seconds
        ),
        "compiled": compiled,
        "measured": measured,
        "roofline": roofline(DEVICES[device], options.precision, total.flops, list(costs.moved.values()))
        | {"device": device},
        "round": price,
        "seconds_taken": time.perf_counter() - started,
        "provenance": record_provenance("profile"),
    }


def _compile(step: Any, target: str | None) -> dict[str, Any]:
    """XLA's plan of the step, and its timeline where the compiler tells."""
    import jax

    from profiling import targets
    from profiling.timeline import compile_with_timeline
    from profiling.xla import memory_plan, operations

    started = time.perf_counter()
    timeline, options = None, {}
    if target is None:
        lowered = jax.jit(step.function, donate_argnums=0).lower(*step.arguments)
        try:
            compiled, timeline = compile_with_timeline(lowered)
        except ValueError:  # this backend's compiler does not tell
            compiled = lowered.compile()
    else:
        options = targets.compiler_options(target)
        lowered = targets.lower_for(target, step.function, step.arguments, donate=(0,))
        compiled = targets.compile_lowered(target, lowered)
    plan = memory_plan(compiled)
    try:
        xla_flops = operations(compiled)
    except ValueError:
        xla_flops = None  # CUDA's compiler gives none without a device
    return {
        "xla_flops": xla_flops,
        "target": target,
        "options": options,
        "compile_seconds": time.perf_counter() - started,
        "plan": dataclasses.asdict(plan) | {"total": plan.total},
        "timeline": timeline and _thinned(timeline),
    }


def _thinned(timeline: Any) -> dict[str, Any]:
    """A timeline's figures, with at most a thousand moments, the peak among them."""
    from experiments.costs.step.module_costs import layer_of

    moments = len(timeline.live_bytes)
    every = -(-moments // 1000)
    kept = sorted({*range(0, moments, every), timeline.peak_moment})
    phases, phase = [], "forward"
    for scope, direction in zip(timeline.scopes, timeline.directions, strict=True):
        # What carries no scope goes on with what was before it; the backward pass recomputes some forward
        # operations, and the forward pass does not come again.
        if scope:
            optimizing = layer_of(scope) == "optimizer"
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
            {**dataclasses.asdict(held), "layer": layer_of(held.scope) if held.scope else "(no scope)"}
            for held in timeline.at_peak
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
    """Every way of saying how much memory a step takes, in bytes."""
    cpu = sum(eager["cpu"].values())
    rows = [
        ("autograd", cpu + parameters, "parameters and what an eager framework on CPU keeps"),
        ("autograd, activations", cpu, "the same without parameters"),
        (
            "autograd, CUDA",
            sum(eager["cuda"].values()) + parameters,
            "by its rules on a GPU: dropout noise of one byte",
        ),
    ]
    if attention:
        linear = cpu - attention + parameters
        rows.append(("autograd, linear part", linear, "without tensors of frames x frames: fused attention"))
    rows.append(("residuals", residual + parameters, "parameters and what jax.vjp keeps"))
    plan = compiled["plan"]["total"]
    target = compiled["target"]
    rows.append(
        (f"plan, {target}", plan, "the compiler's plan for this device: no measurement")
        if target
        else ("xla", plan, "the compiled step: arguments + temporaries + what is not donated")
    )
    if measured is not None:
        rows.append(("measured", measured["peak_bytes"], "most that a process held above idle"))
    return [{"name": name, "bytes": size, "meaning": meaning} for name, size, meaning in rows]


def roofline(device: Any, precision: str, flops: int, moved: list[Any]) -> dict[str, Any]:
    """A step's arithmetic and traffic at a device's rates; None where a rate is unknown."""
    peak = device.peak_flops.get(precision)
    products, unfused = (sum(getattr(row, name) for row in moved) for name in ("products", "unfused"))
    compute = None if peak is None else flops / peak
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
    }
