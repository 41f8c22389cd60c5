"""DrJAX: map and reduce over a placement of clients."""

import logging

import drjax
import jax

from experiments.peers.jax_models import local_training, model
from experiments.peers.protocol import Work, arguments, serve

logging.disable(logging.WARNING)
options = arguments()
work = Work(options.work)
held = model(work, options.form, options.precision)
training = local_training(held, work)
parameters = held.parameters


def local(start, batches):
    """A client's steps."""
    carried = training.start(start)
    return jax.lax.scan(lambda held, batch: (training.step(held, batch), None), carried, batches)[0][0]


@drjax.program(placements={"clients": work.clients})
def program(start, batches):
    """A round."""
    return drjax.reduce_mean(drjax.map_fn(local, (drjax.broadcast(start), batches)))


program = jax.jit(program)
resident = jax.device_put(work.batches)


def run_round():
    """All clients, vectorised."""
    global parameters
    parameters = jax.block_until_ready(program(parameters, resident))


serve(run_round, lambda: held.to_names(parameters), options.out)
