"""`w2v-jax bench cohorts`: memory and seconds of a round against its cohort and against the population."""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.child_process import run_in_child
from experiments.process.provenance import record_provenance
from experiments.report.figures import PAGE_INCHES, message, picture
from experiments.report.footer import footer
from experiments.report.tables import table
from experiments.report.writer import write_report

STEPS, BATCH, SECONDS = 2, 2, 1.0
MIB = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchCohortsArguments:
    """Measure peak memory and seconds of a round for cohorts drawn from a large population.

    example: w2v-jax bench cohorts --out bench/cohorts --clients 100000
    """

    out: Path
    """Folder for cohorts.json, cohorts.md and cohorts.png."""
    population: int = 100_000
    """Clients that a round draws from."""
    cohorts: tuple[int, ...] = (2, 10, 100, 300, 1000)
    """Numbers of clients of a round. The first also runs with no other clients."""
    model: str = "tiny"
    """Model preset."""
    algorithm: str = "fedavg"
    """Federated algorithm, as of w2v-jax pretrain. What its clients keep from round to round is held on
    disk."""


def measure(model: str, population: int, cohort: int, name: str, folder: str) -> dict[str, Any]:
    """Child: run a round that compiles, then measure one that does not.

    Args:
        model: preset.
        population: clients that a round draws from.
        cohort: clients of a round.
        name: of the algorithm.
        folder: for what clients keep.
    """
    xla_flags.configure_xla()
    import jax
    import jax.numpy as jnp
    import optax

    from experiments.bench.workload import NoiseClients
    from experiments.federated.algorithm import AlgorithmSettings, build
    from fed import cohort as layouts
    from fed import sampling, server, simulation
    from fed.client import LocalTraining
    from profiling import process_memory
    from w2v_jax.config import PRESETS
    from w2v_jax.model.convolutions import form_for_clients
    from w2v_jax.objective.pretraining import pretraining_objective

    layout = layouts.choose_layout(cohort)
    config = PRESETS[model].replace(convolution_form=form_for_clients(layout.chunk))
    objective, algorithm = pretraining_objective(config), build(AlgorithmSettings(algorithm=name))
    source = NoiseClients(population, steps=STEPS, batch=BATCH, seconds=SECONDS)
    run = simulation.Simulation(
        LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.01)),
        algorithm,
        source,
        # One group of clients is enough for the first round, which only compiles.
        lambda index: sampling.uniform(source.client_ids(), cohort if index else layout.group_size, 0)(index),
        layout,
        0,
        STEPS,
    )
    state = jax.jit(lambda key: server.init(objective, algorithm, key))(jax.random.key(0))
    states = simulation.client_states(run.settings, state.parameters, Path(folder), on_disk=True)
    run = run._replace(states=states)
    peak, seconds = 0, 0.0
    before, began = 0, time.perf_counter()
    for result in simulation.run(run, state, 2):
        jax.block_until_ready(result.server)
        if result.round_index == 1:
            before, began = process_memory.settle(), time.perf_counter()
        else:
            seconds, peak = time.perf_counter() - began, process_memory.peak_resident_bytes()
    return {
        "population": population,
        "cohort": cohort,
        "lanes": layout.lanes,
        "chunk": layout.chunk,
        "seconds_per_round": seconds,
        "resident_before_bytes": before,
        "peak_bytes": peak,
    }


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(BenchCohortsArguments, argv, "w2v-jax bench cohorts")
    from w2v_jax.config import PRESETS

    arguments.check_choice("--model", options.model, PRESETS)
    if not 1 <= min(options.cohorts) <= max(options.cohorts) <= options.population:
        raise UsageError("--clients-per-round must be between 1 and --clients")
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    first = options.cohorts[0]
    for population, cohort in ((first, first), *((options.population, size) for size in options.cohorts)):
        with tempfile.TemporaryDirectory() as folder:
            row = run_in_child(measure, options.model, population, cohort, options.algorithm, folder)
        rows.append(row)
        print(sentence(rows[-1]), flush=True)
    xla_flags.configure_xla()
    result = {
        "model": options.model,
        "algorithm": options.algorithm,
        "rows": rows,
        "provenance": record_provenance("bench cohorts", 0),
    }
    write_report(options.out, "cohorts", result, markdown, draw)
    print(f"written: {options.out / 'cohorts.md'}")


def sentence(row: dict[str, Any]) -> str:
    """Describe a row in one line."""
    return (
        f"{row['cohort']} of {row['population']:,} clients: {row['seconds_per_round']:.2f} s, "
        f"peak {row['peak_bytes'] / MIB:.0f} MiB"
    )


def markdown(result: dict[str, Any]) -> str:
    """Write the report."""
    rows, made = result["rows"], result["provenance"]
    first, last = rows[0], rows[-1]
    name = result.get("algorithm", "fedavg")
    with_algorithm = "" if name == "fedavg" else f" by {name}, whose clients' states are on disk"
    parts = [
        "# Rounds of large cohorts",
        f"`{result['model']}`{with_algorithm}, {STEPS} steps of {BATCH} x {SECONDS:g} s a client, "
        f"{first['lanes']} lanes of {first['chunk']} on {made['device']}. Each row is a child process: "
        "after a round that compiles, its second round is timed. The peak is the most resident memory in "
        "that round, jax included.",
        f"{last['cohort']} of {last['population']:,} clients take "
        f"{last['peak_bytes'] / first['peak_bytes']:.3f} times the memory of {first['cohort']} of "
        f"{first['population']}.",
        "![memory and time](cohorts.png)",
        table(
            ("population", "cohort", "seconds a round", "ms a client", "peak, MiB", "over the first"),
            [
                (
                    f"{row['population']:,}",
                    row["cohort"],
                    f"{row['seconds_per_round']:.2f}",
                    f"{1e3 * row['seconds_per_round'] / row['cohort']:.1f}",
                    f"{row['peak_bytes'] / MIB:.0f}",
                    f"{row['peak_bytes'] / first['peak_bytes']:.3f}",
                )
                for row in rows
            ],
        ),
        footer(made),
    ]
    return "\n\n".join(parts) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw seconds and memory against the cohort."""
    rows = result["rows"][1:]
    cohorts = [row["cohort"] for row in rows]
    with picture(path, columns=2, figsize=(PAGE_INCHES, 4)) as (seconds, memory):
        seconds.loglog(cohorts, [row["seconds_per_round"] for row in rows], "o-")
        seconds.set(title="Time", xlabel="clients a round", ylabel="seconds a round")
        peaks = [row["peak_bytes"] / MIB for row in rows]
        memory.semilogx(cohorts, peaks, "o-")
        memory.set(title="Memory", xlabel="clients a round", ylabel="peak resident memory, MiB")
        memory.set_ylim(0, 1.1 * max(peaks))
        for axis in (seconds, memory):
            axis.grid(alpha=0.3)
        times = cohorts[-1] / cohorts[0]
        longer = rows[-1]["seconds_per_round"] / rows[0]["seconds_per_round"]
        message(
            seconds,
            f"{times:.0f} times the clients take {longer:.0f} times the time and {peaks[-1] / peaks[0]:.2f} "
            f"times the memory. Clients are drawn from {rows[0]['population']:,}. A point is one round of "
            "one process, so that there are no error bars.",
        )
