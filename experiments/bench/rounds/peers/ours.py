"""Run this project's rounds in the layout that the engine chooses itself."""

import functools
from typing import NamedTuple

from experiments.bench.rounds.peers.protocol import ADAM_EPSILON, Work, arguments, serve
from experiments.process import xla_flags

options = arguments()
work = Work(options.work)
xla_flags.configure_xla(
    min(options.threads, work.clients), model=work.model_name, precision=options.precision
)

# XLA reads its flags when jax is imported.
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from experiments.bench.rounds.peers.jax_models import model  # noqa: E402
from fed import chunks, cohort, server, simulation  # noqa: E402
from fed.algorithms.averaging import averaging  # noqa: E402
from fed.client import LocalTraining  # noqa: E402
from fed.engine.blocks import Engine  # noqa: E402
from fed.protocols import ClientPlan, Resident  # noqa: E402
from fed.round import run_round as run_one  # noqa: E402
from w2v_jax.model.convolutions import form_for_clients  # noqa: E402

rows = next(iter(work.batches.values())).shape[2]
layout = cohort.choose_layout(work.clients)
on_cpu = jax.default_backend() == "cpu"


@functools.cache
def workload(form):
    """Build the workload's model with its convolutions in one form."""
    return model(work, form, options.precision)


def form_of(chunk):
    """Return the form asked for, or the form that this project chooses for a chunk."""
    return options.form if options.form != "auto" else form_for_clients(chunk)


class Objective(NamedTuple):
    """The workload as fed's Objective."""

    init: object
    value_and_grad: object


def training_of(chunk):
    """Build the training of clients of which `chunk` run side by side."""
    ours = workload(form_of(chunk))

    def value_and_grad(parameters, state, batch, key, step):
        value, gradients = jax.value_and_grad(ours.loss)(parameters, batch)
        return gradients, state, {"loss": (value * rows, jnp.float32(rows))}

    objective = Objective(lambda key: (ours.parameters, {}), value_and_grad)
    optimizer = optax.identity() if work.optimizer == "sgd" else optax.scale_by_adam(eps=ADAM_EPSILON)
    return LocalTraining(objective, optimizer, lambda step: jnp.float32(work.learning_rate))


class Source:
    """Clients with the work file's batches, which stay on an accelerator as other runners' batches do."""

    resident = (
        None
        if on_cpu
        else Resident(
            # Moved once, because every trial's engine would make a copy.
            jax.device_put(work.batches),
            lambda data, place: jax.tree.map(lambda leaf: leaf[place[0], place[1]], data),
        )
    )

    def client_ids(self):
        return [f"{client:04d}" for client in range(work.clients)]

    def plan(self, client_id, round_index):
        return ClientPlan(work.steps, 0, 1.0)

    def client_batches(self, client_id, round_index):
        client = int(client_id)
        if self.resident:
            return (np.array([client, step], np.int32) for step in range(work.steps))
        return (work.batch(client, step) for step in range(work.steps))


source = Source()
parameters = jax.tree.map(jnp.copy, workload(form_of(1)).parameters)
state = server.ServerState(parameters, {}, averaging().server_init(parameters), jnp.int32(0))


@functools.cache
def engine_of(chunk) -> Engine:
    """Compile the programs for `chunk` clients side by side."""
    batch = next(source.client_batches("0000", 0))
    settings = cohort.RoundSettings(training_of(chunk), averaging(), layout._replace(chunk=chunk))
    return simulation.build_engine(settings, state, batch, work.steps, resident=source.resident)


trials = []
if not on_cpu:
    per_lane = -(-work.clients // layout.lanes)
    trials = chunks.measure(engine_of, state, per_lane, work.steps, chunks.device_memory_bytes())
    layout = layout._replace(chunk=chunks.fastest(trials))
engine = engine_of(layout.chunk)
engine_of.cache_clear()
round_index, slots = 0, 0


def run_round():
    """Run a round of all clients."""
    global state, round_index, slots
    outcome = run_one(
        engine, state, source, source.client_ids(), seed=0, round_index=round_index, first_step=0
    )
    state, round_index, slots = outcome.server, round_index + 1, outcome.step_slots
    jax.block_until_ready(state.parameters)


def about():
    """Describe the layout of the round."""
    return {
        "lanes": layout.lanes,
        "chunk": layout.chunk,
        "padded_share": 1.0 - work.clients * work.steps / slots,
        "trials": [trial._asdict() for trial in trials],
    }


serve(
    run_round,
    lambda: workload(form_of(layout.chunk)).to_names(jax.tree.map(np.asarray, state.parameters)),
    options.out,
    about=about,
)
