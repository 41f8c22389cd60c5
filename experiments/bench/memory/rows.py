"""Measure rows of memory against time: a process that compiles, then processes that the cache serves."""

import itertools
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from experiments.bench.memory.runs import Measured, OutOfMemory, measure
from experiments.process.child_process import run_in_child
from experiments.process.progress import stage
from w2v_jax import memory_methods
from w2v_jax.config import PRESETS

SETTINGS = ("model", "batch", "seconds", "method", "optimizer", "precision")
Settings = dict[str, Any]  # fields of StepSettings


def rows(
    wanted: Sequence[Settings],
    *,
    steps: int,
    repeats: int,
    gradient_check: Callable[[Settings], Mapping[str, Any]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Measure settings: for each, a first process compiles, then `repeats` processes do not.

    The repeats of all settings take turns, so that a slow phase of the machine slows all of them.

    Args:
        wanted: settings of steps.
        steps: steps of every process but the first, which takes one.
        repeats: processes that the compilation cache serves.
        gradient_check: settings -> fields of a row about their gradients.

    Yields:
        A row of memory.json for each of `wanted`.
    """
    found: list[dict[str, Any]] = [{} for _ in wanted]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        runs: list[list[Measured]] = [[] for _ in wanted]
        for turn, (place, settings) in itertools.product(range(1 + repeats), enumerate(wanted)):
            if turn and not runs[place]:
                continue
            try:
                run = measure(settings, 1 if turn == 0 else steps, environment)
            except OutOfMemory as ended:
                stage(f"{describe(settings)}: {ended}")
                continue
            if "step_seconds" not in run.told:
                stage(f"{describe(settings)}: not run, its plan is {run.told['plan_bytes'] / 1e9:.1f} GB")
                if not runs[place]:
                    found[place] = row_of(settings, None, [run])
                continue
            runs[place].append(run)
            stage(
                f"{describe(settings)}: {run.above_idle_bytes / 1e9:.2f} GB above idle, "
                f"{run.told['step_seconds'][-1]:.1f} s a step{' (compiling)' if turn == 0 else ''}"
            )
    for settings, row, measured in zip(wanted, found, runs, strict=True):
        if not row:
            row = row_of(settings, measured[0] if measured else None, measured[1:])
        if gradient_check is not None:
            try:
                row |= gradient_check(settings)
            except subprocess.CalledProcessError as failed:  # the measurements are still worth having
                stage(f"{describe(settings)}: gradients not compared, status {failed.returncode}")
        yield row


def row_of(settings: Settings, first: Measured | None, served: list[Measured]) -> dict[str, Any]:
    """Make a row of memory.json; fields are None where nothing could be measured.

    Args:
        settings: settings of the step.
        first: the process that compiled, or None.
        served: the processes that the cache served.
    """
    told = served[-1].told if served else {}
    ran = [run for run in served if "step_seconds" in run.told]
    # The first step of a process also touches its pages for the first time; it counts only if it is alone.
    seconds = [s for run in ran for s in (run.told["step_seconds"][1:] or run.told["step_seconds"])]
    worst = max(ran, key=lambda run: run.above_idle_bytes, default=None)
    return {
        **{name: settings[name] for name in SETTINGS},
        "memory": worst and worst.memory,
        "peak_bytes": worst and worst.peak_bytes,
        "idle_bytes": worst and worst.idle_bytes,
        "above_idle_bytes": worst and worst.above_idle_bytes,
        "compiling_above_idle_bytes": first and first.above_idle_bytes,
        "step_seconds": statistics.median(seconds) if seconds else None,
        "all_step_seconds": seconds,
        "losses": ran[-1].told["losses"] if ran else None,
        "compile_seconds": first and first.told["compile_seconds"],
        "cached_compile_seconds": told.get("compile_seconds"),
        "gradient_error": None,
        **{
            name: told.get(name)
            for name in (
                "plan_bytes",
                "temporary_bytes",
                "parameter_bytes",
                "optimizer_bytes",
                "xla_flags",
                "tunables",
            )
        },
    }


def describe(settings: Settings) -> str:
    """Describe settings in one line."""
    return (
        f"{settings['model']}, {settings['batch']} x {settings['seconds']:g} s, {settings['precision']}, "
        f"{settings['optimizer']}, {settings['method']}"
    )


def gradient_error(model: str, method: str, precision: str, batch: int, seconds: float) -> dict[str, Any]:
    """Compare a method's gradients with the plain step's in a child process.

    The utterances have unequal lengths, so that micro-batches have unequal counts of masked frames. They make
    at least two micro-batches.

    Returns:
        gradient_error (norm of the difference over the norm of the plain gradients), gradient_batch and
        gradient_seconds.
    """
    micro = memory_methods.configured(PRESETS[model], method).micro_batch
    return run_in_child(_gradient_error, model, method, precision, max(batch, 2 * (micro or 0)), seconds)


def _gradient_error(model: str, method: str, precision: str, batch: int, seconds: float) -> dict[str, Any]:
    from experiments.process import xla_flags

    xla_flags.configure_xla(1, model=model, precision=precision)
    import jax
    import jax.numpy as jnp
    import numpy as np

    from experiments.costs.step.training_step import StepSettings, noise_batch
    from w2v_jax.objective.pretraining import pretraining_objective

    def settings(name: str) -> StepSettings:
        return StepSettings(model=model, batch=batch, seconds=seconds, precision=precision, method=name)  # type: ignore[arg-type]  # a plain word

    clips = noise_batch(settings(memory_methods.PLAIN))
    shares = np.linspace(1.0, 0.5, batch)
    clips = clips._replace(num_samples=(shares * settings(memory_methods.PLAIN).samples).astype(np.int32))
    inside = jnp.arange(clips.waveform.shape[1])[None] < clips.num_samples[:, None]
    clips = clips._replace(waveform=jnp.where(inside, clips.waveform, 0.0))
    key, step = jax.random.key(2), jnp.int32(3)

    def gradients(name: str) -> list[np.ndarray]:
        objective = pretraining_objective(settings(name).config)
        parameters = jax.jit(objective.init)(jax.random.key(0))[0]
        if memory_methods.is_layerwise(name):
            assert objective.descend is not None
            rate = jnp.float32(100.0)  # a large rate, or rounding of the parameters would hide the step
            after, _, _ = jax.jit(objective.descend)(parameters, {}, clips, key, step, rate)
            found = jax.tree.map(lambda p, q: (p - q) / rate, parameters, after)
        else:
            found = jax.jit(objective.value_and_grad)(parameters, {}, clips, key, step)[0]
        return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(found)]

    plain, others = gradients(memory_methods.PLAIN), gradients(method)
    apart = sum(float(np.square(a - b).sum()) for a, b in zip(plain, others, strict=True))
    return {
        "gradient_error": (apart / sum(float(np.square(a).sum()) for a in plain)) ** 0.5,
        "gradient_batch": batch,
        "gradient_seconds": seconds,
    }


def provenance_of(command: str, model: str, precision: str) -> dict[str, Any]:
    """Record the provenance with this process's backend; call it after all measurements."""
    from experiments.process import xla_flags
    from experiments.process.provenance import record_provenance

    xla_flags.configure_xla(1, model=model, precision=precision)
    return record_provenance(command, 0)
