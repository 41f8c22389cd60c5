"""Run a plain loop: one jitted client step after another, one client at a time."""

import jax
import jax.numpy as jnp

from experiments.bench.rounds.peers.jax_models import local_training, model
from experiments.bench.rounds.peers.protocol import Work, arguments, serve

options = arguments()
work = Work(options.work)
workload = model(work, options.form, options.precision)
training = local_training(workload, work)
step = jax.jit(training.step)
init = jax.jit(training.init)
add = jax.jit(
    lambda total, end: jax.tree.map(lambda a, b: a + b / work.clients, total, end), donate_argnums=0
)
parameters = workload.parameters


def run_round():
    """Train all clients, one after another."""
    global parameters
    total = jax.tree.map(jnp.zeros_like, parameters)
    for client in range(work.clients):
        local = (parameters, init(parameters))
        for index in range(work.steps):
            local = step(local, work.batch(client, index))
        total = add(total, local[0])
    parameters = jax.block_until_ready(total)


serve(run_round, lambda: workload.to_names(parameters), options.out)
