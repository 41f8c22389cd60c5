"""`w2v-jax export`: write a whole training step for boards, with the runner that times it there."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance
from w2v_jax.config import PresetName
from w2v_jax.memory_methods import names_of

PROBE_SEED, PROBE_STEPS = 0, 3
# Relative tolerance of losses. 16-bit products round differently on different platforms.
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 2e-2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Export a training step (losses, gradients, optimizer) for cpu and cuda; runner.py times it on a board.

    This takes a minute for base: three steps run here, and the board must find the same numbers.

    example: w2v-jax export --model base --batch 4 --seconds 5.5 --precision fp16 --out artifacts/base-4
    """

    out: Path
    """Folder for artifact.json, the programs, runner.py and plain_step.py. Copy it to the board."""
    model: PresetName = "base"
    """Model preset."""
    seconds: float = 5.5
    """Length of each utterance, in seconds."""
    batch: int = 4
    """Utterances in a batch."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 round the operands of matrix products; everything else stays fp32. fp16 (the paper's
    mixed) also scales the loss; it is for boards without bf16."""
    method: str = "plain"
    """How gradients are computed: method names separated by commas; w2v-jax bench memory --list explains
    them. exact combines all methods that save memory and leave the gradient as it is."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Optimizer of a client."""
    platforms: tuple[Literal["cpu", "cuda"], ...] = ("cpu", "cuda")
    """Platforms to export for; the device need not be here."""
    check: bool = True
    """Run three steps here too, whose numbers the board must find (needs the step's memory here)."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(ExportArguments, argv, "w2v-jax export")
    check_step(options.model, options.batch, options.seconds)
    with arguments.blaming("--method"):
        names_of(options.method)
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out} is a file: choose another --out")
    xla_flags.configure_xla(1)
    from experiments.costs.step import training_step
    from experiments.process.progress import stage

    settings = training_step.StepSettings(
        **{f.name: getattr(options, f.name) for f in dataclasses.fields(training_step.StepSettings)}
    )
    manifest = export(settings, options.platforms, options.check, options.out, stage)
    print(summary(manifest, options.out))


def check_step(model: str, batch: int, seconds: float) -> None:
    """Refuse an impossible step.

    Raises:
        UsageError: the batch or the length is out of range.
    """
    from w2v_jax.config import PRESETS, SAMPLE_RATE_HZ

    if batch < 1:
        raise UsageError(f"--batch must be at least 1, got {batch}")
    shortest = PRESETS[model].receptive_field_samples / SAMPLE_RATE_HZ
    if not shortest <= seconds <= 3600:
        raise UsageError(f"--seconds must be between {shortest:g} and 3600, got {seconds:g}")


def export(settings: Any, platforms: Any, probe: bool, out: Path, stage: Any) -> dict[str, Any]:
    """Write the artifact of a step and return its manifest.

    Args:
        settings: StepSettings.
        platforms: "cpu", "cuda" or both.
        probe: run three steps here and keep their numbers.
        out: folder of the artifact.
        stage: receives a line about each stage of the work.
    """
    import jax

    import w2v_jax.interop.plain_step
    from experiments.costs.step import module_costs, training_step
    from profiling import export as artifacts
    from profiling.xla import memory_plan
    from w2v_jax.platforms import lowering_for

    manifest: dict[str, Any] = {
        "description": settings.describe(),
        "settings": dataclasses.asdict(settings),
        "config": dataclasses.asdict(settings.config),
        "optimizer": dataclasses.asdict(settings.optimizer_config),
        "learning_rate": training_step.LEARNING_RATE,
        "exported": artifacts.versions(),
        "audio_seconds": settings.batch * settings.seconds,
    }
    stage(f"drawing weights of {settings.model}")
    step = training_step.build(settings)
    manifest["state"] = describe_state(jax.jit(step.begin)(jax.random.key(0)))
    manifest["inputs"] = describe_inputs(settings)
    manifest["donated"] = len(manifest["state"])  # the first arguments, which the first outputs replace
    leaves = [jax.ShapeDtypeStruct(e["shape"], e["dtype"]) for e in manifest["state"] + manifest["inputs"]]
    stage(f"pricing {settings.describe()}")
    costs = module_costs.step_costs(settings.config, step)
    manifest["flops"] = dataclasses.asdict(costs.total) | {"total": costs.total.flops}
    manifest["moved_bytes"] = sum(moved.unfused for moved in costs.moved.values())
    programs = {}
    for platform in platforms:
        stage(f"exporting for {platform}")
        with lowering_for("gpu" if platform == "cuda" else "cpu"):
            programs[platform] = artifacts.export_program(
                flat_step(training_step.build(settings)), leaves, platform
            )
    memory: dict[str, Any] = {"kept_plans": kept_plans(settings)}
    manifest["memory"] = memory
    manifest["probe"] = None
    if probe:
        stage("compiling and running three steps here")
        count = len(manifest["state"])
        direct = jax.jit(flat_step(step), donate_argnums=range(count)).lower(*leaves).compile()
        memory["cpu_plan_bytes"] = memory_plan(direct).total
        manifest["probe"] = probe_of(direct, manifest, TOLERANCE[settings.precision])
    manifest["provenance"] = record_provenance("export", PROBE_SEED)
    return artifacts.write_artifact(out, manifest, programs, Path(w2v_jax.interop.plain_step.__file__))


def flat_step(step: Any) -> Any:
    """Flatten a TrainingStep's function.

    Returns:
        (state leaves..., waveform, num_samples, utterance_id, key_data, step) -> (state leaves..., loss).
    """
    import jax

    from w2v_jax.batch import Batch

    treedef = jax.tree.structure(step.arguments[0])
    count = treedef.num_leaves

    def flat(*leaves):
        state = jax.tree.unflatten(treedef, leaves[:count])
        waveform, num_samples, utterance_id, key_data, index = leaves[count:]
        batch = Batch(waveform, num_samples, utterance_id)
        state, loss = step.function(state, batch, jax.random.wrap_key_data(key_data), index)
        return (*jax.tree.leaves(state), loss)

    return flat


def describe_state(state: Any) -> list[dict[str, Any]]:
    """Describe the leaves of (parameters, optimizer state[, loss scale]) by plain_step.py's names."""
    import jax

    from profiling.export import describe_leaf, draw_like

    sections = ("parameters", "optimizer", "loss_scale")
    entries = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        # Indices into an optax chain are left out of the name; field names and parameter paths stay.
        words = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path[1:]]
        name = "/".join([sections[path[0].idx], *filter(None, words)])
        entries.append(describe_leaf(name, leaf, draw_like(leaf)))
    return entries


def describe_inputs(settings: Any) -> list[dict[str, Any]]:
    """Describe the batch (whole utterances of noise), the key data and the step number."""
    import jax
    import jax.numpy as jnp

    from experiments.costs.step.training_step import abstract_batch
    from profiling.export import describe_leaf

    draws = (
        {"kind": "normal", "mean": 0.0, "std": 0.1},
        {"kind": "constant", "value": settings.samples},
        {"kind": "range"},
    )
    batch = abstract_batch(settings.batch, settings.samples)
    zero = {"kind": "constant", "value": 0}
    return [
        *(describe_leaf(*row) for row in zip(batch._fields, batch, draws, strict=True)),
        describe_leaf("key_data", jax.ShapeDtypeStruct((2,), jnp.uint32), zero),
        describe_leaf("step", jax.ShapeDtypeStruct((), jnp.int32), zero),
    ]


def probe_of(compiled: Any, manifest: dict[str, Any], tolerance: float) -> dict[str, Any]:
    """Run the first steps and return the numbers that the board must find again."""
    import jax

    from profiling import runner

    def call(state, inputs):
        *state, loss = compiled(*state, *inputs)
        return state, loss

    def place(array):
        return jax.device_put(array).copy()  # an array that shares numpy's memory cannot be donated

    found = runner.probe_values(call, manifest, PROBE_SEED, PROBE_STEPS, place)
    return {"seed": PROBE_SEED, "relative_tolerance": tolerance} | found


def kept_plans(settings: Any) -> dict[str, float]:
    """Return the kept plans for boards that are not here: board -> bytes."""
    from experiments.costs.devices import plan_surface
    from profiling.devices import DEVICES

    plans = {}
    for name, device in DEVICES.items():
        if device.kind == "board" and device.variant_of is None and settings.optimizer == "adamw":
            planned = plan_surface.plan(
                device, settings.model, settings.method, settings.precision, settings.batch, settings.seconds
            )
            if planned is not None:
                plans[name] = planned.bytes
    return plans


def summary(manifest: dict[str, Any], out: Path) -> str:
    """Say what was written and what to do with it."""
    from w2v_jax.interop import plain_step

    sizes = ", ".join(f"{row['file']} {row['bytes'] / 1e6:.1f} MB" for row in manifest["programs"].values())
    probe = manifest["probe"]
    losses = ", ".join(f"{loss:.5f}" for loss in probe["losses"]) if probe else "not run"
    return "\n".join(
        [
            f"{manifest['description']}: {manifest['flops']['total'] / 1e9:.0f} GFLOPs a step",
            f"written: {out}: artifact.json, {sizes}, runner.py, plain_step.py"
            + (" (which lacks this method)" if plain_step.lacks(manifest) else ""),
            f"losses of the first steps: {losses}",
            f"on the board (docs/guides/boards.md): python runner.py {out.name} --out timings.json",
        ]
    )
