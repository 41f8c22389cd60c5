"""The real objective with every kind of noise gives the same in every layout, to 1e-5 of the norm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import server, simulation
from fed.aggregation import loss_weighted
from fed.algorithms.averaging import averaging
from fed.client import LocalTraining
from fed.cohort import Layout, RoundSettings
from fed.keys import client_number, round_key, step_key
from fed.protocols import ClientPlan
from tests.configs import OBJECTIVES, lengthened
from w2v_jax import memory_methods
from w2v_jax.batch import Batch
from w2v_jax.model.convolutions import form_for_clients
from w2v_jax.objective.pretraining import pretraining_objective

CONFIGS = {
    name: config.replace(
        dropout=0.1,
        attention_dropout=0.1,
        activation_dropout=0.1,
        input_dropout=0.1,
        feature_dropout=0.1,
        layer_drop=0.2,
    )
    for name, config in OBJECTIVES.items()
}
CONFIG = CONFIGS["wav2vec2"]


class NoiseClients:
    """Three clients with 3, 1 and 2 steps; some rows are padding."""

    def __init__(self, config=CONFIG):
        self.steps = {"a": 3, "b": 1, "c": 2}
        self.lengths = tuple(lengthened(length, config) for length in (900, 700, 800))

    def client_ids(self):
        return list(self.steps)

    def plan(self, client_id, round_index):
        return ClientPlan(self.steps[client_id], 0, 1.0)

    def client_batches(self, client_id, round_index):
        for step in range(self.steps[client_id]):
            rng = np.random.default_rng((ord(client_id), round_index, step))
            longest, short, first = self.lengths
            lengths = np.array([longest, short, 0 if step else first], np.int32)
            waveform = rng.standard_normal((3, longest)).astype(np.float32)
            waveform *= np.arange(longest)[None] < lengths[:, None]
            yield Batch(waveform, lengths, np.arange(3, dtype=np.uint32) + np.uint32(10 * step))


OPTIMIZERS = {
    "sgd": (optax.identity(), 0.05, 10),
    "adamw": (optax.chain(optax.scale_by_adam(eps=1e-6), optax.add_decayed_weights(0.01)), 1e-3, 1),
}


def final_parameters(
    optimizer, layout, order=("a", "b", "c"), block_steps=None, method="plain", objective="wav2vec2"
):
    # Convolutions in the form that a run of this layout takes.
    config = memory_methods.configured(CONFIGS[objective], method).replace(
        convolution_form=form_for_clients(layout.chunk)
    )
    if config.encoder_block_frames:  # clips are short here: several blocks all the same
        config = config.replace(
            encoder_block_frames=10,
            attention_block_frames=12,
            feed_forward_block_frames=12,
            similarity_block_frames=12,
        )
    objective = pretraining_objective(config)
    transformation, rate, rounds = OPTIMIZERS[optimizer]
    training = LocalTraining(objective, transformation, lambda step: jnp.float32(rate))
    run = simulation.Simulation(
        training,
        averaging(loss_weighted()),
        NoiseClients(config),
        lambda r: list(order),
        layout,
        2,
        3,
        block_steps,
    )
    state = jax.jit(lambda k: server.init(objective, averaging(), k))(jax.random.key(0))
    *_, last = simulation.run(run, state, rounds)
    return jax.device_get(last.server.parameters)


@pytest.fixture(scope="module")
def one_by_one():
    return functools.cache(
        lambda optimizer, objective="wav2vec2": final_parameters(optimizer, Layout(1, 1), objective=objective)
    )


ARRANGEMENTS = [
    (Layout(2, 2), "cab", 2),
    (Layout(1, 3), "abc", None),
    (Layout(3, 1), "bca", 1),
    (Layout(2, 2, shards=2), "abc", None),
]


# Arrangements and optimizers that the plain tests have, by objective; the rest is slow.
PLAIN_ARRANGEMENTS = {"wav2vec2": 0, "best-rq": 1, "wav2vec2-log-mel": 0}


@pytest.mark.parametrize(
    ("objective", "optimizer", "layout", "order", "block_steps"),
    [
        pytest.param(
            objective,
            optimizer,
            *arrangement,
            marks=[pytest.mark.slow] * (place >= PLAIN_ARRANGEMENTS[objective] or optimizer == "adamw"),
        )
        for objective in CONFIGS
        for optimizer in OPTIMIZERS
        for place, arrangement in enumerate(ARRANGEMENTS)
    ],
    ids=str,
)
def test_layout_order_and_blocks_change_nothing(one_by_one, objective, optimizer, layout, order, block_steps):
    found = final_parameters(optimizer, layout, order, block_steps, objective=objective)
    expected = one_by_one(optimizer, objective)
    difference = optax.tree.norm(jax.tree.map(np.subtract, found, expected))
    assert difference <= 1e-5 * optax.tree.norm(expected)


@pytest.mark.parametrize(
    ("objective", "layout", "method"),
    [
        pytest.param("wav2vec2", Layout(2, 2), "exact", marks=pytest.mark.slow),
        pytest.param("best-rq", Layout(2, 2), "exact", marks=pytest.mark.slow),
        pytest.param("wav2vec2", Layout(1, 3), "exact", marks=pytest.mark.slow),
        pytest.param("best-rq", Layout(1, 3), "exact", marks=pytest.mark.slow),
        pytest.param("best-rq", Layout(1, 3), "remat-layers,micro-2", marks=pytest.mark.slow),
        pytest.param("wav2vec2-log-mel", Layout(2, 2), "remat-layers,micro-2", marks=pytest.mark.slow),
        *(
            pytest.param("wav2vec2", layout, "encoder-blocks,remat-layers,micro-2", marks=pytest.mark.slow)
            for layout in (Layout(1, 3), Layout(2, 2))
        ),
    ],
    ids=str,
)
def test_methods_that_take_less_memory_change_no_round(one_by_one, objective, layout, method):
    found = final_parameters("sgd", layout, method=method, objective=objective)
    expected = one_by_one("sgd", objective)
    difference = optax.tree.norm(jax.tree.map(np.subtract, found, expected))
    assert difference <= 1e-5 * optax.tree.norm(expected)
    assert difference > 0.0  # it was computed another way


@pytest.mark.slow
def test_the_automatic_chunk_goes_by_the_methods_memory():
    """Trials run the program of the method: more clients fit beside one another."""
    from fed import chunks

    class LongClients(NoiseClients):
        def client_batches(self, client_id, round_index):
            waveform = np.random.default_rng(0).standard_normal((3, 24_000)).astype(np.float32)
            while True:
                yield Batch(waveform, np.full(3, 24_000, np.int32), np.arange(3, dtype=np.uint32))

    def trials_of(method, memory_bytes):
        objective = pretraining_objective(
            memory_methods.configured(CONFIG, method).replace(convolution_form="product")
        )
        training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.05))
        state = jax.jit(lambda k, o=objective: server.init(o, averaging(), k))(jax.random.key(0))
        source = LongClients()

        def build(chunk, training=training, state=state, source=source):
            first = next(source.client_batches("a", 0))
            settings = RoundSettings(training, averaging(loss_weighted()), Layout(1, chunk))
            return simulation.build_engine(settings, state, first, 1)

        return {trial.chunk: trial for trial in chunks.measure(build, state, 2, 1, memory_bytes)}

    plain = trials_of("plain", None)
    memory_bytes = 0.9 * plain[2].planned_bytes / chunks.MEMORY_SHARE
    plain, exact = trials_of("plain", memory_bytes), trials_of("exact", memory_bytes)
    assert set(plain) == set(exact) == {1, 2}
    assert exact[1].planned_bytes < exact[2].planned_bytes < 0.5 * plain[1].planned_bytes
    assert plain[2].cohort_seconds is None
    assert exact[2].cohort_seconds is not None
    assert chunks.fastest(list(plain.values())) == 1


@pytest.mark.parametrize("name", [pytest.param("wav2vec2", marks=pytest.mark.slow), "best-rq"])
def test_one_client_one_step_equals_plain_training(name):
    objective, source = pretraining_objective(CONFIGS[name]), NoiseClients(CONFIGS[name])
    training = LocalTraining(objective, optax.identity(), lambda step: jnp.float32(0.05))
    run = simulation.Simulation(
        training, averaging(loss_weighted()), source, lambda r: ["b"], Layout(1, 1), 2, 1
    )
    state = jax.jit(lambda k: server.init(objective, averaging(), k))(jax.random.key(0))
    parameters = jax.device_get(state.parameters)
    (last,) = simulation.run(run, state, 1)
    key = step_key(round_key(2, 0), np.uint32(client_number("b")), np.int32(0))
    batch = next(source.client_batches("b", 0))
    gradients = jax.jit(objective.value_and_grad)(parameters, {}, batch, key, jnp.int32(0))[0]
    expected = jax.tree.map(lambda p, g: p - np.float32(0.05) * np.asarray(g), parameters, gradients)
    found = jax.device_get(last.server.parameters)
    difference = optax.tree.norm(jax.tree.map(np.subtract, found, expected))
    assert difference <= 1e-6 * optax.tree.norm(expected)
