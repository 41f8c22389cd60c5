"""The cost of a federated round: all clients' steps, the server's work, the bytes that are sent."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.costs.step.training_step import StepSettings, abstract_batch, abstract_key
from fed import aggregation, client, server
from fed.algorithm import Combined, Server
from fed.algorithms.averaging import averaging
from fed.client import Block, LocalTraining
from fed.compression import Codec
from fed.compression.compressed import compressed
from fed.compression.transfers import client_transfers
from profiling.flops import count
from w2v_jax.objective.pretraining import pretraining_objective
from w2v_jax.optim import make_optimizer


def round_price(
    settings: StepSettings,
    clients: int,
    local_steps: int,
    up: Codec | None = None,
    down: Codec | None = None,
) -> dict[str, Any]:
    """Price a round of FedAvg by tracing the federated engine's own programs; nothing is run.

    Args:
        settings: settings of a client's step.
        clients: clients of the round.
        local_steps: steps of each client.
        up: codec of the clients' updates, for the bytes alone: its operations are not counted.
        down: codec of the server's model, likewise.

    Returns:
        Operations of all clients and of the server, bytes down and up, seconds of audio heard.
    """
    objective = pretraining_objective(settings.config)
    optimizer = make_optimizer(settings.optimizer_config)
    training = LocalTraining(objective, optimizer, lambda step: jnp.float32(1e-4))
    parameters, state = jax.eval_shape(objective.init, abstract_key())
    step = jax.ShapeDtypeStruct((), jnp.int32)
    batch = abstract_batch(settings.batch, settings.samples)
    sums = jax.eval_shape(objective.value_and_grad, parameters, state, batch, abstract_key(), step)[2]
    algorithm = averaging()
    held = jax.eval_shape(
        lambda p, s: client.start(training, algorithm, Server(p, ()), s, (), sums), parameters, state
    )
    flags = jax.ShapeDtypeStruct((local_steps,), jnp.bool_)
    batches = abstract_batch(settings.batch, settings.samples, local_steps)
    block = Block._make((batches, flags, flags, jax.ShapeDtypeStruct((local_steps,), jnp.int32)))
    number = jax.ShapeDtypeStruct((), jnp.uint32)
    one = count(
        lambda *arguments: client.train_block(training, algorithm, *arguments),
        *(held, block, number, abstract_key(), step),
    )

    def aggregate(server_state, finals, log_weights):
        updates = jax.tree.map(lambda new, old: new - old[None], finals, server_state.parameters)
        empty = aggregation.empty((parameters, state))
        mean = aggregation.finish(aggregation.add(empty, (updates, state), log_weights))
        combined = Combined(mean[0], jnp.float32(clients), jnp.float32(clients))
        return server.step(algorithm, server_state, combined, mean[1])

    finals = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((clients, *leaf.shape), leaf.dtype), parameters)
    begun = jax.eval_shape(lambda key: server.init(objective, algorithm, key), abstract_key())
    folding = count(aggregate, begun, finals, jax.ShapeDtypeStruct((clients,), jnp.float32))
    sent = client_transfers(compressed(algorithm, up, down), training, parameters, state)
    sent = sent.of_clients(clients, clients)
    return {
        "clients": clients,
        "local_steps": local_steps,
        "client_flops": clients * one.total.flops,
        "server_flops": folding.total.flops,
        "bytes_down": sent.down,
        "bytes_up": sent.up,
        "audio_seconds": clients * local_steps * settings.batch * settings.seconds,
        "unpriced": {
            f"{name} (in a round)": clients * one.unpriced.get(name, 0) + folding.unpriced.get(name, 0)
            for name in (*one.unpriced, *folding.unpriced)
        },
    }
