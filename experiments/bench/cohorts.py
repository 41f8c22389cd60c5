"""`w2v-jax bench cohorts`: memory and time of a round against its cohort and against the population."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.process.child_process import run_in_child
from experiments.process.files import replace_file, write_json
from experiments.process.provenance import record_provenance

STEPS, BATCH, SECONDS = 2, 2, 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchCohortsArguments:
    """Peak memory and seconds of a round, for cohorts drawn from a large population.

    example: w2v-jax bench cohorts --out bench/cohorts --population 100000
    """

    out: Path
    """Folder for cohorts.json, cohorts.md and cohorts.png."""
    population: int = 100_000
    """Clients that a cohort is drawn from."""
    cohorts: tuple[int, ...] = (2, 10, 100, 300, 1000)
    """Clients a round. The first one is also run with no other clients in the population."""
    model: str = "tiny"
    """Model preset."""


class NoiseSource:
    """A population of clients whose audio is made when it is asked for."""

    def __init__(self, population: int):
        self._ids = [f"client{number:06d}" for number in range(population)]

    def client_ids(self) -> list[str]:
        return self._ids

    def plan(self, client_id: str, round_index: int):
        from fed.protocols import ClientPlan

        return ClientPlan(STEPS, 0, 1.0)

    def client_batches(self, client_id: str, round_index: int) -> Iterator[Any]:
        from w2v_jax.batch import Batch
        from w2v_jax.config import SAMPLE_RATE_HZ

        samples = round(SECONDS * SAMPLE_RATE_HZ)
        for step in range(STEPS):
            rng = np.random.default_rng((int(client_id.removeprefix("client")), round_index, step))
            waveform = (0.1 * rng.standard_normal((BATCH, samples))).astype(np.float32)
            lengths, rows = np.full(BATCH, samples, np.int32), np.arange(BATCH, dtype=np.uint32)
            yield Batch._make((waveform, lengths, rows))


def child(model: str, population: int, cohort: int) -> dict[str, Any]:
    """Two rounds: one that compiles, and one whose memory and time count."""
    xla_flags.configure_xla()
    import jax
    import jax.numpy as jnp
    import optax

    from fed import cohort as layouts
    from fed import sampling, server, simulation
    from fed.aggregation import fedavg
    from fed.client import LocalTraining
    from profiling import process_memory
    from w2v_jax.config import PRESETS
    from w2v_jax.model.convolutions import form_for_clients
    from w2v_jax.objective.pretraining import pretraining_objective

    layout = layouts.choose_layout(cohort)
    config = PRESETS[model].replace(convolution_form=form_for_clients(layout.chunk))
    objective, optimizer = pretraining_objective(config), optax.sgd(1.0)
    source = NoiseSource(population)
    run = simulation.Simulation(
        LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.01)),
        fedavg,
        optimizer,
        source,
        # The first round only warms up: a group of it is enough.
        lambda index: sampling.uniform(source.client_ids(), cohort if index else layout.group_size, 0)(index),
        layout,
        0,
        STEPS,
    )
    state = jax.jit(lambda key: server.init(objective, optimizer, key))(jax.random.key(0))
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
        raise UsageError("--cohorts must be between 1 and --population")
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    first = options.cohorts[0]
    for population, cohort in ((first, first), *((options.population, size) for size in options.cohorts)):
        rows.append(run_in_child(child, options.model, population, cohort))
        print(sentence(rows[-1]), flush=True)
    xla_flags.configure_xla()
    result = {"model": options.model, "rows": rows, "provenance": record_provenance("bench cohorts", 0)}
    write_json(options.out / "cohorts.json", result)
    replace_file(options.out / "cohorts.md", markdown(result))
    draw(result, options.out / "cohorts.png")
    print(f"written: {options.out / 'cohorts.md'}")


def sentence(row: dict[str, Any]) -> str:
    """A row in words."""
    return (
        f"{row['cohort']} of {row['population']:,} clients: {row['seconds_per_round']:.2f} s, "
        f"peak {row['peak_bytes'] / 2**20:.0f} MiB"
    )


def markdown(result: dict[str, Any]) -> str:
    """The table for readers."""
    rows, made = result["rows"], result["provenance"]
    base, last = rows[0], rows[-1]
    lines = [
        f"| {row['population']:,} | {row['cohort']} | {row['seconds_per_round']:.2f} | "
        f"{1e3 * row['seconds_per_round'] / row['cohort']:.1f} | {row['peak_bytes'] / 2**20:.0f} | "
        f"{row['peak_bytes'] / base['peak_bytes']:.3f} |"
        for row in rows
    ]
    table = "\n".join(lines)
    return (
        f"# Rounds of large cohorts\n\n`{result['model']}`, {STEPS} steps of {BATCH} x {SECONDS:g} s a client, "
        f"{base['lanes']} lanes of {base['chunk']} on {made['device']}. Each row is a process of its own; its peak "
        "resident memory (jax and all imports included) is that of one round after one that compiled.\n\n"
        f"{last['cohort']} of {last['population']:,} clients take "
        f"{last['peak_bytes'] / base['peak_bytes']:.3f} times the memory of {base['cohort']} of {base['population']}.\n\n"
        "![memory and time](cohorts.png)\n\n"
        "| population | cohort | seconds a round | ms a client | peak, MiB | over the first |\n"
        f"|---|---|---|---|---|---|\n{table}\n\n"
        f"`{made['command']}`, commit {made['commit']}, {made['cores']} cores, "
        + ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        + "\n"
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """Seconds and memory against the cohort."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = result["rows"][1:]
    cohorts = [row["cohort"] for row in rows]
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    axes[0].loglog(cohorts, [row["seconds_per_round"] for row in rows], "o-")
    axes[0].set(title="Time", xlabel="clients a round", ylabel="seconds a round")
    axes[1].semilogx(cohorts, [row["peak_bytes"] / 2**20 for row in rows], "o-")
    axes[1].set(title="Memory", xlabel="clients a round", ylabel="peak resident memory, MiB")
    axes[1].set_ylim(0, None)
    figure.savefig(path, dpi=110)
    plt.close(figure)
