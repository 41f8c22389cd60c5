"""Lower the programs of a round and compile them for a target's devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fed import cohort, server
from fed.algorithm import Server
from fed.algorithms.averaging import averaging
from fed.client import Block, LocalTraining
from fed.engine.programs import build_programs
from fed.simulation import abstract_sums
from profiling import targets
from w2v_jax import platforms
from w2v_jax.batch import Batch
from w2v_jax.config import TINY
from w2v_jax.objective.pretraining import pretraining_objective

CHUNK, STEPS, ROWS, SAMPLES = 2, 2, 2, 16_000
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def compile_round(target: str) -> dict[str, Any]:
    """Compile a round of the tiny model, a lane for each device of the target, two clients on each."""
    devices = targets.devices_of(target)
    with platforms.lowering_for(targets.platform_of(target)):
        arguments, lanes = _programs(devices)
        sizes, met, aliased = {}, [], 0
        for name, (program, given) in arguments.items():
            compiled = targets.compile_lowered(target, program.lower(*given))
            plan = compiled.memory_analysis()
            sizes[name] = plan.temp_size_in_bytes + plan.argument_size_in_bytes + plan.output_size_in_bytes
            if any(word in compiled.as_text() for word in COLLECTIVES):
                met.append(name)
            if name == "block":
                aliased = plan.alias_size_in_bytes
    state = arguments["block"][1][0]
    return {
        "programs": sizes,
        "lanes": lanes,
        "collectives": met,
        "aliased_bytes": aliased,
        "state_bytes": sum(leaf.dtype.itemsize * leaf.size for leaf in jax.tree.leaves(state)) // lanes,
    }


def _programs(devices) -> tuple[dict[str, Any], int]:
    """Return (program, its arguments' shapes) by name, and the number of lanes."""
    objective = pretraining_objective(TINY)
    training = LocalTraining(objective, optax.scale_by_adam(), lambda step: jnp.float32(1e-3))
    algorithm, lanes = averaging(), len(devices)
    state = jax.eval_shape(lambda key: server.init(objective, algorithm, key), jax.random.key(0))
    batch = Batch(
        np.zeros((ROWS, SAMPLES), np.float32), np.full(ROWS, SAMPLES, np.int32), np.zeros(ROWS, np.uint32)
    )
    sums = abstract_sums(objective, state.parameters, state.objective_state, batch)
    layout = cohort.Layout(lanes, CHUNK)
    settings = cohort.RoundSettings(training, algorithm, layout)
    programs = build_programs(settings, sums, devices=devices)
    everywhere, by_client = programs.replicated, programs.by_client

    def placed(tree, sharding):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    def clients(shape, dtype):
        return jax.ShapeDtypeStruct((layout.group_size, *shape), dtype, sharding=by_client)

    state = placed(state, everywhere)
    sent = Server(state.parameters, state.optimizer_state)
    model = (sent, state.objective_state)
    key = placed(jax.eval_shape(lambda: jax.random.key(0)), everywhere)
    block = Block(
        jax.tree.map(lambda leaf: clients((STEPS, *leaf.shape), leaf.dtype), batch),
        clients((STEPS,), bool),
        clients((STEPS,), bool),
        clients((STEPS,), jnp.int32),
    )
    client_state = placed(jax.eval_shape(programs.start, *model, ()), by_client)
    totals = placed(jax.eval_shape(programs.empty, *model), NamedSharding(by_client.mesh, P("lanes")))
    first = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    return {
        "start": (programs.start, (*model, ())),
        "block": (
            programs.block,
            (client_state, block, clients((), jnp.uint32), key, first, cohort.Shared(sent)),
        ),
        "fold": (
            programs.fold,
            (totals, client_state, *model, clients((), jnp.float32), clients((), jnp.uint32), key),
        ),
        "whole": (
            programs.whole,
            (
                totals,
                *model,
                (),
                block,
                clients((), jnp.uint32),
                key,
                first,
                cohort.Shared(sent),
                clients((), jnp.float32),
            ),
        ),
        "step": (
            programs.step,
            (state, totals, [], key, jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)),
        ),
    }, lanes
