"""One client at a time per device, everything resident: the scheme of apple/ml-pfl4asr.

The data of all clients stay on the device, a client's steps are one scanned program that works in place
on a local copy, and updates are summed in place.
"""

import jax
import jax.numpy as jnp

from experiments.bench.rounds.peers.jax_models import local_training, model
from experiments.bench.rounds.peers.protocol import Work, arguments, serve

options = arguments()
work = Work(options.work)
held = model(work, options.form, options.precision)
resident = [
    jax.device_put({name: values[client] for name, values in work.batches.items()})
    for client in range(work.clients)
]
training = local_training(held, work)


def train(total, parameters, batches):
    """Add a client's update to the total."""
    carried = training.start(parameters)
    end = jax.lax.scan(lambda held, batch: (training.step(held, batch), None), carried, batches)[0][0]
    return jax.tree.map(lambda t, e, p: t + (e - p) / work.clients, total, end, parameters)


train = jax.jit(train, donate_argnums=0)
finish = jax.jit(lambda parameters, total: jax.tree.map(jnp.add, parameters, total), donate_argnums=(0, 1))
parameters = held.parameters


def run_round():
    """All clients, one after another."""
    global parameters
    total = jax.tree.map(jnp.zeros_like, parameters)
    for batches in resident:
        total = train(total, parameters, batches)
    parameters = jax.block_until_ready(finish(parameters, total))


serve(run_round, lambda: held.to_names(parameters), options.out)
