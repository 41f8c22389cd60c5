"""Run DrJAX: map and reduce over a placement of clients, on one device or over a mesh of devices."""

import contextlib
import logging
import os

from experiments.bench.rounds.peers.protocol import Work, arguments, serve

options = arguments()
work = Work(options.work)
MESH = options.form == "mesh"
if MESH:
    # The largest number of devices that divides the number of clients. jax reads the flag when it starts.
    devices = next(count for count in range(options.threads, 0, -1) if work.clients % count == 0)
    flags = (os.environ.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={devices}")
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()

import drjax  # noqa: E402
import jax  # noqa: E402

from experiments.bench.rounds.peers.jax_models import local_training, model  # noqa: E402

logging.disable(logging.WARNING)
workload = model(work, "product" if MESH else options.form, options.precision)
training = local_training(workload, work)
parameters = workload.parameters
sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
where = contextlib.nullcontext()
if MESH:
    where = mesh = jax.sharding.Mesh(jax.devices(), ("clients",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("clients"))


def local(start, batches):
    """Take a client's steps."""
    carried = training.start(start)
    return jax.lax.scan(lambda carry, batch: (training.step(carry, batch), None), carried, batches)[0][0]


@drjax.program(placements={"clients": work.clients})
def program(start, batches):
    """Compute a round."""
    return drjax.reduce_mean(drjax.map_fn(local, (drjax.broadcast(start), batches)))


program = jax.jit(program)
resident = jax.device_put(work.batches, sharding)


def run_round():
    """Train all clients, vectorised."""
    global parameters
    with where:
        parameters = jax.block_until_ready(program(parameters, resident))


serve(run_round, lambda: workload.to_names(parameters), options.out)
