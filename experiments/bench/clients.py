"""`w2v-jax bench clients`: seconds per round for K clients: loop, vmap, lanes, and the automatic choice."""

import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.options import arguments
from experiments.process import xla_flags
from experiments.process.files import replace_file, write_json
from experiments.process.provenance import record_provenance

METHODS = ("loop", "vmap_lax", "vmap", "auto")
STEPS, BATCH_SIZE, SECONDS, LEARNING_RATE = 4, 4, 1.0, 0.05
WORKLOAD = (
    f"tiny model in fp32, {STEPS} local SGD steps a client, batches of {BATCH_SIZE} crops of {SECONDS} s of "
    "noise, FedAvg, batches resident in host memory"
)
EXPLANATION = {
    "loop": "one jitted client step after another, one client at a time, lax.conv",
    "vmap_lax": "all clients vmapped on one device, lax.conv",
    "vmap": "all clients vmapped on one device, convolutions as matrix products",
    "auto": "the engine's own choice of lanes, chunk and convolution",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchClientsArguments:
    """Compare ways of running K clients side by side; gated on equal results.

    example: w2v-jax bench clients --out bench/clients --clients 1 4 8 16
    """

    out: Path
    """Folder for clients.json, clients.md and clients.png."""
    clients: tuple[int, ...] = (1, 4, 8, 16)
    """Numbers of clients K."""
    repeats: int = 9
    """Interleaved repeats per method and K; the median counts."""
    lanes: int | None = None
    """Devices for `auto`. Default: all (on CPU one per core)."""


class NoiseSource:
    """K clients with batches of noise, made once."""

    def __init__(self, clients: int):
        from w2v_jax.batch import Batch
        from w2v_jax.config import SAMPLE_RATE_HZ

        samples = int(SECONDS * SAMPLE_RATE_HZ)
        self._batches: dict[str, list[Any]] = {}
        for client in range(clients):
            rng = np.random.default_rng((0, client))
            self._batches[f"client{client}"] = [
                Batch._make(
                    (
                        rng.standard_normal((BATCH_SIZE, samples), np.float32) * np.float32(0.1),
                        np.full(BATCH_SIZE, samples, np.int32),
                        np.arange(BATCH_SIZE, dtype=np.uint32) + np.uint32(BATCH_SIZE * step),
                    )
                )
                for step in range(STEPS)
            ]

    def client_ids(self) -> list[str]:
        """All clients."""
        return list(self._batches)

    def plan(self, client_id: str, round_index: int) -> Any:
        """Equal work for everyone."""
        from fed.protocols import ClientPlan

        return ClientPlan(STEPS, 0, 1.0)

    def client_batches(self, client_id: str, round_index: int):
        """The same batches every round."""
        return iter(self._batches[client_id])


@dataclasses.dataclass(frozen=True)
class Contender:
    """One method at one K: `run` takes what `prepare` gives, and returns a round's new parameters."""

    method: str
    chunk: int
    lanes: int
    prepare: Callable[[], Any]  # not timed: a round consumes its state
    run: Callable[[Any], Any]


def contenders(clients: int, lanes: int | None) -> list[Contender]:
    """All methods for K clients."""
    import jax
    import jax.numpy as jnp
    import optax

    from fed import cohort, keys, server, simulation
    from fed.aggregation import fedavg
    from fed.client import LocalTraining
    from fed.cohort import Layout
    from fed.round import run_round
    from w2v_jax.config import TINY
    from w2v_jax.model.convolutions import form_for_clients
    from w2v_jax.objective.pretraining import pretraining_objective

    source = NoiseSource(clients)
    names = source.client_ids()

    def setting(form: str):
        objective = pretraining_objective(TINY.replace(convolution_form=form))
        training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(LEARNING_RATE))
        return objective, training

    def vectorised(method: str, form: str, layout: Layout) -> Contender:
        objective, training = setting(form)
        initial = server.init(objective, optax.sgd(1.0), jax.random.key(0))
        first = next(source.client_batches(names[0], 0))
        settings = cohort.RoundSettings(training, fedavg, optax.sgd(1.0), layout)
        engine = simulation.build_engine(settings, initial, first, STEPS)

        def prepare():
            return jax.block_until_ready(jax.tree.map(jnp.copy, initial))

        def run(state):
            outcome = run_round(engine, state, source, names, seed=0, round_index=0, first_step=0)
            return jax.block_until_ready(outcome.server.parameters)

        return Contender(method, layout.chunk, layout.lanes, prepare, run)

    def loop() -> Contender:
        objective, _ = setting("lax")
        initial, state = objective.init(jax.random.key(0))

        @jax.jit
        def step(parameters, batch, key):
            gradients, _, _ = objective.value_and_grad(parameters, state, batch, key, jnp.int32(0))
            return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, parameters, gradients)

        add = jax.jit(lambda total, p: jax.tree.map(lambda a, b: a + b / clients, total, p))

        def run(initial):
            key = keys.round_key(0, 0)
            total = jax.tree.map(jnp.zeros_like, initial)
            for name in names:
                parameters, number = initial, np.uint32(keys.client_number(name))
                for index, batch in enumerate(source.client_batches(name, 0)):
                    parameters = step(parameters, batch, keys.step_key(key, number, np.int32(index)))
                total = add(total, parameters)
            return jax.block_until_ready(total)

        return Contender("loop", 1, 1, lambda: initial, run)

    chosen = cohort.choose_layout(clients, lanes=lanes)
    return [
        loop(),
        vectorised("vmap_lax", "lax", Layout(1, clients)),
        vectorised("vmap", "product", Layout(1, clients)),
        vectorised("auto", form_for_clients(chosen.chunk), chosen),
    ]


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(BenchClientsArguments, argv, "w2v-jax bench clients")
    arguments.check_at_least(1, options, "clients", "repeats", "lanes")
    options.out.mkdir(parents=True, exist_ok=True)  # before anything is measured
    xla_flags.configure_xla(options.lanes)
    import jax
    import optax

    rows = []
    for clients in options.clients:
        entries = contenders(clients, options.lanes)
        reference = jax.device_get(entries[0].run(entries[0].prepare()))
        for entry in entries[1:]:  # compiles, and gates on equal results
            found = jax.device_get(entry.run(entry.prepare()))
            difference = optax.tree.norm(jax.tree.map(np.subtract, found, reference))
            share = float(difference / optax.tree.norm(reference))
            if not share < 1e-4:
                raise RuntimeError(f"{entry.method} differs from loop by {share:.1e} of the parameters' norm")
        seconds: dict[str, list[float]] = {entry.method: [] for entry in entries}
        for _, entry in itertools.product(range(options.repeats), entries):
            state = entry.prepare()
            started = time.perf_counter()
            entry.run(state)
            seconds[entry.method].append(time.perf_counter() - started)
        for entry in entries:
            times = np.array(seconds[entry.method])
            ratio = times / np.array(seconds["auto"])
            rows.append(
                {
                    "clients": clients,
                    "method": entry.method,
                    "chunk": entry.chunk,
                    "lanes": entry.lanes,
                    "seconds_per_round": float(np.median(times)),
                    "seconds_p10": float(np.quantile(times, 0.1)),
                    "seconds_p90": float(np.quantile(times, 0.9)),
                    "ratio_to_auto": float(np.median(ratio)),
                    "ratio_to_auto_p10": float(np.quantile(ratio, 0.1)),
                    "ratio_to_auto_p90": float(np.quantile(ratio, 0.9)),
                    "samples": times.tolist(),
                }
            )
            row = rows[-1]
            print(
                f"K={clients:<3} {entry.method:<9} {row['seconds_per_round']:.3f} s a round  "
                f"({row['ratio_to_auto']:.2f} x auto)",
                flush=True,
            )
    result = {"workload": WORKLOAD, "rows": rows, "provenance": record_provenance("bench clients", 0)}
    write_json(options.out / "clients.json", result)
    draw(rows, options.out / "clients.png")
    replace_file(options.out / "clients.md", markdown(result))
    print(f"written: {options.out / 'clients.json'}, clients.md, clients.png")


def markdown(result: dict[str, Any]) -> str:
    """The table for readers."""
    lines = [
        "# Seconds per round for K clients",
        "",
        f"Workload: {result['workload']}. Interleaved runs; medians, and the 10th to 90th percentile of the",
        "ratio to `auto` run by run. All methods end at the same parameters (1e-4 of their norm).",
        "",
        "| K | method | lanes x chunk | seconds | ratio to auto |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['clients']} | {row['method']} | {row['lanes']} x {row['chunk']} | "
            f"{row['seconds_per_round']:.3f} | {row['ratio_to_auto']:.2f} "
            f"({row['ratio_to_auto_p10']:.2f} to {row['ratio_to_auto_p90']:.2f}) |"
        )
    provenance = result["provenance"]
    lines += [
        "",
        *(verdict(clients, result["rows"]) for clients in sorted({row["clients"] for row in result["rows"]})),
        "",
        *(f"- `{name}`: {text}" for name, text in EXPLANATION.items()),
        "",
        "![seconds](clients.png)",
        "",
    ]
    lines += [
        f"`{provenance['command']}`, commit {provenance['commit']}, {provenance['device']}, "
        f"{provenance['cores']} cores, flags `{provenance['xla_flags']}`, "
        + ", ".join(f"{name} {version}" for name, version in provenance["versions"].items()),
        "",
    ]
    return "\n".join(lines)


def verdict(clients: int, rows: list[dict[str, Any]]) -> str:
    """Whether anything was faster than `auto` at K clients, beyond the spread of the runs."""
    others = [row for row in rows if row["clients"] == clients and row["method"] != "auto"]
    best = min(others, key=lambda row: row["ratio_to_auto"])
    times = f"{best['method']} takes {best['ratio_to_auto']:.2f} x auto"
    if best["ratio_to_auto_p90"] < 1:
        return f"- K = {clients}: auto is NOT the fastest: {times}, in nine of ten runs less than 1"
    if best["ratio_to_auto_p10"] > 1:
        return f"- K = {clients}: auto is the fastest; next, {times}"
    return f"- K = {clients}: auto is level with the fastest within the spread; {times}"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds per round against K."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for method in METHODS:
        of = [row for row in rows if row["method"] == method]
        middle = np.array([row["seconds_per_round"] for row in of])
        low, high = (np.array([row[key] for row in of]) for key in ("seconds_p10", "seconds_p90"))
        axis.errorbar(
            [row["clients"] for row in of],
            middle,
            [middle - low, high - middle],
            marker="o",
            capsize=3,
            label=method,
        )
    axis.set(xlabel="clients K", ylabel="seconds per round", title="One federated round, tiny model")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks([row["clients"] for row in rows], [str(row["clients"]) for row in rows])
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
