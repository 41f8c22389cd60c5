"""A toy simulation in one of several processes: python -m tests.fed.distributed_toy OUT OPTIMIZER ROUNDS.

Where JAX_COORDINATOR_ADDRESS, NUM_PROCESSES and PROCESS_ID are set it joins the others.
"""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fed import placement, sampling, server, simulation
from fed.aggregation import loss_weighted
from fed.algorithms.averaging import averaging
from fed.client import LocalTraining
from fed.cohort import Layout
from tests.fed.toy import ToySource, toy_objective

STEPS = [5, 3, 1, 4, 4, 2, 7, 3, 2, 6, 1]
OPTIMIZERS = {
    "sgd": (optax.identity(), 0.05),
    "adamw": (optax.chain(optax.scale_by_adam(eps=1e-6), optax.add_decayed_weights(0.01)), 0.01),
}


def run(optimizer: str, rounds: int, layout: Layout) -> list:
    """Run the toy; return its results on the host, round by round."""
    transformation, rate = OPTIMIZERS[optimizer]
    objective, data = toy_objective(), ToySource(STEPS)
    training = LocalTraining(objective, transformation, lambda step: jnp.float32(rate))
    made = simulation.Simulation(
        training, averaging(loss_weighted()), data, sampling.everyone(data.client_ids()), layout, 3, 7,
        keep_models=lambda index: index == 0,
    )  # fmt: skip
    state = server.init(objective, averaging(), jax.random.key(0))
    return [result._replace(server=fetched(result.server)) for result in simulation.run(made, state, rounds)]


def fetched(tree):
    return placement.fetch(tree)


if __name__ == "__main__":
    out, optimizer, rounds = sys.argv[1:]
    jax.config.update("jax_threefry_partitionable", True)
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        jax.distributed.initialize(
            num_processes=int(os.environ["NUM_PROCESSES"]), process_id=int(os.environ["PROCESS_ID"])
        )
    results = run(optimizer, int(rounds), Layout(jax.device_count(), 1))
    last = results[-1]
    leaves = jax.tree.leaves((last.server.parameters, last.server.objective_state))
    kept = jax.tree.leaves(results[0].models.after)
    np.savez(
        out,
        *leaves,
        losses=last.losses,
        weights=last.weights,
        kept=sum(float(np.abs(leaf).sum()) for leaf in kept),
        processes=jax.process_count(),
        devices=jax.device_count(),
    )
