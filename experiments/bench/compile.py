"""`w2v-jax bench compile`: seconds to compile a model's round, cold and from the persistent cache."""

import dataclasses
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.child_process import run_in_child
from experiments.process.provenance import record_provenance
from experiments.report.footer import footer
from experiments.report.tables import table
from experiments.report.writer import write_report

EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace_seconds",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower_seconds",
    "/jax/core/compile/backend_compile_duration": "compile_seconds",  # or reading from the cache
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchCompileArguments:
    """Time the compilation of a federated round with an empty cache, then in a process that finds it filled.

    example: w2v-jax bench compile --out bench/compile --model base
    """

    out: Path
    """Folder for compile.json and compile.md."""
    model: str = "base"
    """Model preset."""
    batch: int = 1
    """Utterances in a batch."""
    seconds: float = 5.5
    """Length of each utterance, in seconds."""


def measure(model: str, batch: int, seconds: float) -> dict[str, Any]:
    """Child: run two rounds of two clients with one step each; the first round compiles."""
    xla_flags.configure_xla(model=model)
    import jax

    from experiments.bench.workload import NoiseClients
    from fed import cohort, server, simulation
    from fed.algorithms.averaging import averaging
    from fed.client import LocalTraining
    from w2v_jax.config import PRESETS
    from w2v_jax.model.convolutions import form_for_clients
    from w2v_jax.objective.pretraining import pretraining_objective
    from w2v_jax.optim import OptimizerConfig, make_learning_rate, make_optimizer

    found = dict.fromkeys(EVENTS.values(), 0.0)

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event in EVENTS:
            found[EVENTS[event]] += duration_secs

    source, layout = NoiseClients(2, steps=1, batch=batch, seconds=seconds), cohort.choose_layout(2)
    config = PRESETS[model].replace(convolution_form=form_for_clients(layout.chunk))
    objective = pretraining_objective(config)
    rates = OptimizerConfig(
        learning_rate=1e-4, warmup_steps=1, total_steps=10, final_share=0.1, clip_norm=1.0, weight_decay=0.01
    )
    training = LocalTraining(objective, make_optimizer(rates), make_learning_rate(rates))
    state = jax.jit(lambda key: server.init(objective, averaging(), key))(jax.random.key(0))
    jax.block_until_ready(state)
    run = simulation.Simulation(
        training, averaging(), source, lambda index: source.client_ids(), layout, 0, 1
    )
    jax.monitoring.register_event_duration_secs_listener(listen)
    walls, began = [], time.perf_counter()
    for result in simulation.run(run, state, 2):
        jax.block_until_ready(result.server)
        walls.append(time.perf_counter() - began)
        began = time.perf_counter()
    return found | {"first_round_seconds": walls[0], "second_round_seconds": walls[1]}


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(BenchCompileArguments, argv, "w2v-jax bench compile")
    from w2v_jax.config import PRESETS

    arguments.check_choice("--model", options.model, PRESETS)
    arguments.check_at_least(1, options, "batch")
    if not 0.5 <= options.seconds <= 60:
        raise UsageError(f"--seconds must be between 0.5 and 60, got {options.seconds:g}")
    options.out.mkdir(parents=True, exist_ok=True)
    rows = {}
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
        }
        for kind in ("cold", "cached"):
            given = (options.model, options.batch, options.seconds)
            rows[kind] = run_in_child(measure, *given, environment=environment)
            print(f"{kind}: {rows[kind]}", flush=True)
    xla_flags.configure_xla()
    result = {
        "model": options.model,
        "batch": options.batch,
        "seconds": options.seconds,
        "rows": rows,
        "provenance": record_provenance("bench compile", 0),
    }
    write_report(options.out, "compile", result, markdown)
    print(f"written: {options.out / 'compile.md'}")


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    columns = (*EVENTS.values(), "first_round_seconds", "second_round_seconds")
    parts = [
        "# Compiling a round",
        f"`{result['model']}`, two clients with one step each, batch {result['batch']} of "
        f"{result['seconds']:g} s, AdamW; all programs of a round on {result['provenance']['device']}. "
        "`cached` is a second process that finds the programs that the first one compiled: its `compile` is "
        "the time to read them.",
        table(
            ("", "trace, s", "lower, s", "compile, s", "first round, s", "second round, s"),
            [(kind, *(f"{row[name]:.1f}" for name in columns)) for kind, row in result["rows"].items()],
        ),
        footer(result["provenance"]),
    ]
    return "\n\n".join(parts) + "\n"
