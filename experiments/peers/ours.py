"""This project's rounds, as the engine lays them out by itself."""

from typing import NamedTuple

from experiments import runtime
from experiments.peers.protocol import Work, arguments, serve

options = arguments()
work = Work(options.work)
runtime.configure_xla(min(options.threads, work.clients))

# XLA reads its flags when jax is imported.
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from experiments.peers.jax_models import model  # noqa: E402
from fed import cohort, server, simulation  # noqa: E402
from fed.aggregation import fedavg  # noqa: E402
from fed.client import LocalTraining  # noqa: E402
from fed.protocols import ClientPlan  # noqa: E402
from fed.round import run_round as run_one  # noqa: E402

layout = cohort.choose_layout(work.clients)
held = model(work, options.form, options.precision)
rows = next(iter(work.batches.values())).shape[2]


class Objective(NamedTuple):
    """The workload as fed's Objective."""

    init: object
    value_and_grad: object


def value_and_grad(parameters, state, batch, key, step):
    """Gradients and the loss's sum."""
    value, gradients = jax.value_and_grad(held.loss)(parameters, batch)
    return gradients, state, {"loss": (value * rows, jnp.float32(rows))}


class Source:
    """Clients with the work file's batches."""

    def client_ids(self):
        return [f"{client:04d}" for client in range(work.clients)]

    def plan(self, client_id, round_index):
        return ClientPlan(work.steps, 0, 1.0)

    def client_batches(self, client_id, round_index):
        return (work.batch(int(client_id), step) for step in range(work.steps))


source = Source()
objective = Objective(lambda key: (held.parameters, {}), value_and_grad)
training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(work.learning_rate))
optimizer = optax.sgd(1.0)
state = server.ServerState(held.parameters, {}, optimizer.init(held.parameters), jnp.int32(0))
state = jax.tree.map(jnp.copy, state)
engine = simulation.build_engine(training, fedavg, optimizer, layout, state, work.batch(0, 0), work.steps)
round_index = 0


def run_round():
    """A round of all clients."""
    global state, round_index
    outcome = run_one(
        engine, state, source, source.client_ids(), seed=0, round_index=round_index, first_step=0
    )
    state, round_index = outcome.server, round_index + 1
    jax.block_until_ready(state.parameters)


serve(run_round, lambda: held.to_names(jax.tree.map(np.asarray, state.parameters)), options.out)
