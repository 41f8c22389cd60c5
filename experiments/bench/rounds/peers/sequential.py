"""Run one client at a time on a device, with everything resident: the scheme of apple/ml-pfl4asr.

The data of all clients stay on the device. A client's steps are one scanned program, which works in place on
a local copy of the parameters. Updates are summed in place.
"""

import jax
import jax.numpy as jnp

from experiments.bench.rounds.peers.jax_models import local_training, model
from experiments.bench.rounds.peers.protocol import Work, arguments, serve

options = arguments()
work = Work(options.work)
workload = model(work, options.form, options.precision)
resident = [
    jax.device_put({name: values[client] for name, values in work.batches.items()})
    for client in range(work.clients)
]
training = local_training(workload, work)


def train(total, parameters, batches):
    """Add a client's update to the total."""
    carried = training.start(parameters)
    end = jax.lax.scan(lambda carry, batch: (training.step(carry, batch), None), carried, batches)[0][0]
    return jax.tree.map(lambda t, e, p: t + (e - p) / work.clients, total, end, parameters)


train = jax.jit(train, donate_argnums=0)
finish = jax.jit(lambda parameters, total: jax.tree.map(jnp.add, parameters, total), donate_argnums=(0, 1))
parameters = workload.parameters


def run_round():
    """Train all clients, one after another."""
    global parameters
    total = jax.tree.map(jnp.zeros_like, parameters)
    for batches in resident:
        total = train(total, parameters, batches)
    parameters = jax.block_until_ready(finish(parameters, total))


serve(run_round, lambda: workload.to_names(parameters), options.out)
