"""Training a part of a model: chosen parameters, and low-rank changes, with frozen ones on the devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fed import server, simulation
from fed.algorithm import array_bytes
from fed.algorithms.averaging import averaging
from fed.algorithms.scaffold import scaffold
from fed.client import LocalTraining
from fed.cohort import Layout
from fed.compression import codec, partial
from fed.compression.compressed import compressed
from fed.compression.transfers import client_transfers
from fed.protocols import FederationError, Resident
from tests.fed.algorithms.regression import Objective, Source

RATE = 0.05
TWO_AT_ONCE = Layout(1, 2)


class Layers:
    """A regression through two stacked layers of tanh units."""

    @staticmethod
    def init(key):
        first, second = jax.random.split(key)
        return {
            "layers": {"kernel": jax.random.normal(first, (2, 3, 3)), "bias": jnp.zeros((2, 3))},
            "head": {"kernel": jax.random.normal(second, (3, 2))},
        }, {}

    @staticmethod
    def value_and_grad(parameters, state, batch, key, step):
        del key, step

        def loss(parameters):
            hidden = batch["x"]
            for kernel, bias in zip(
                *(parameters["layers"][name] for name in ("kernel", "bias")), strict=True
            ):
                hidden = jnp.tanh(hidden @ kernel + bias[None])
            return jnp.square((hidden @ parameters["head"]["kernel"]).sum(1) - batch["y"]).mean()

        value, gradients = jax.value_and_grad(loss)(parameters)
        return gradients, state, {"loss": (value, jnp.float32(1.0))}


def train(objective, source, state=None, algorithm=None, rounds=3, layout=TWO_AT_ONCE, rate=RATE):
    """Rounds of all clients from a key of zero: the last state of the server, on the host."""
    algorithm = algorithm or averaging()
    run = simulation.Simulation(
        LocalTraining(objective, optax.identity(), lambda step: jnp.float32(rate)),
        algorithm,
        source,
        lambda index: source.client_ids(),
        layout,
        0,
        5,
    )
    begun = server.init(objective, algorithm, jax.random.key(0)) if state is None else state
    *_, last = simulation.run(run, begun, rounds)
    return jax.device_get(last.server)


def split(part, objective: Any = Layers):
    return part.split(objective.init(jax.random.key(0))[0], jax.random.key(1))


def same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


class Masked:
    """The whole objective with gradients of zero for w: the slow way to freeze it."""

    init = Objective.init

    @staticmethod
    def value_and_grad(parameters, *others):
        gradients, *rest = Objective.value_and_grad(parameters, *others)
        return {"w": jnp.zeros_like(gradients["w"]), "b": gradients["b"]}, *rest


@pytest.mark.parametrize("layout", [Layout(1, 2), Layout(2, 1)], ids=str)
@pytest.mark.parametrize("chosen", [["b"], lambda path: path == "b"], ids=["pattern", "predicate"])
def test_training_a_part_equals_training_with_gradients_of_zero(chosen, layout):
    part = partial.train_only(Objective, chosen)
    trained, frozen = split(part, Objective)
    assert jax.tree.leaves(trained) == [0.5]
    last = train(part, partial.WithFrozen(Source(), frozen), layout=layout)
    merged = part.merge(last.parameters, frozen)
    same(merged, train(Masked, Source()).parameters)
    np.testing.assert_array_equal(merged["w"], frozen["w"])
    assert merged["b"] != 0.5


def test_frozen_parameters_are_arguments_and_one_copy_for_all_clients():
    part = partial.train_only(Layers, ["head/*"])
    trained, frozen = split(part)
    source = partial.WithFrozen(Source(), frozen)
    run = simulation.Simulation(
        LocalTraining(part, optax.identity(), lambda step: jnp.float32(RATE)),
        averaging(),
        source,
        lambda index: list(source.client_ids()),
        Layout(1, 4),
        0,
        5,
    )
    engine = simulation.prepare(run, server.init(part, averaging(), jax.random.key(0)))
    held = jax.tree.map(lambda leaf: leaf.shape, engine.data[1])
    assert held["layers"] == {"kernel": (2, 3, 3), "bias": (2, 3)}
    assert array_bytes(engine.data) == array_bytes(frozen) == 4 * (18 + 6)
    assert array_bytes(trained) == 4 * 6
    # Another frozen model in the same program gives another result: it is no constant.
    other = jax.tree.map(lambda leaf: leaf + 1.0, frozen)
    batch = jax.tree.map(jnp.asarray, next(Source().client_batches("client1", 0)))
    step = jax.jit(lambda frozen: part.value_and_grad(
        trained, {}, source.resident.read(((), frozen), batch), jax.random.key(0), 0
    )[2]["loss"][0])  # fmt: skip
    assert step(frozen) != step(other)


def test_a_source_with_resident_data_keeps_them():
    class Standing(Source):
        """Batches are on the device; what a client sends there is their place."""

        def __init__(self):
            super().__init__()
            self.slot_seconds = 2.5
            names = self.client_ids()
            self.rows = [batch for name in names for batch in super(Standing, self).client_batches(name, 0)]
            data = jax.tree.map(lambda *leaves: np.stack(leaves), *self.rows)
            self.resident = Resident(data, lambda data, at: jax.tree.map(lambda leaf: leaf[at], data))

        def client_batches(self, client_id, round_index):
            index = int(client_id.removeprefix("client"))
            first = sum(self.steps[:index])
            return iter(np.arange(first, first + self.steps[index], dtype=np.int32))

    part = partial.train_only(Objective, ["b"])
    _, frozen = split(part, Objective)
    standing = partial.WithFrozen(Standing(), frozen)
    assert standing.slot_seconds == 2.5
    ours = train(part, standing, rounds=1)
    same(ours.parameters, train(part, partial.WithFrozen(Source(), frozen), rounds=1).parameters)


def test_a_freeze_schedule_is_a_run_for_each_stage():
    whole, stages = jax.device_get(Layers.init(jax.random.key(0))[0]), []
    for patterns in (["head/*"], ["layers/*"]):
        part = partial.train_only(Layers, patterns)
        trained, frozen = part.split(whole, jax.random.key(0))
        begun = server.init(part, averaging(), jax.random.key(0))._replace(parameters=trained)
        whole = part.merge(train(part, partial.WithFrozen(Source(), frozen), begun).parameters, frozen)
        stages.append(whole)
    first = Layers.init(jax.random.key(0))[0]
    np.testing.assert_array_equal(stages[0]["layers"]["kernel"], first["layers"]["kernel"])
    np.testing.assert_array_equal(stages[1]["head"]["kernel"], stages[0]["head"]["kernel"])
    assert np.any(stages[0]["head"]["kernel"] != first["head"]["kernel"])
    assert np.any(stages[1]["layers"]["kernel"] != stages[0]["layers"]["kernel"])


def test_low_rank_changes_begin_at_the_model_and_merge_exactly():
    part = partial.lora(Layers, ["*kernel"], rank=2, alpha=3.0)
    trained, frozen = split(part)
    assert jax.tree.map(jnp.shape, trained) == {
        "layers": {"kernel": {"a": (2, 3, 2), "b": (2, 2, 3)}, "bias": None},
        "head": {"kernel": {"a": (3, 2), "b": (2, 2)}},
    }
    same(part.merge(trained, frozen), frozen)
    last = train(part, partial.WithFrozen(Source(), frozen))
    merged = part.merge(last.parameters, frozen)
    a, b = (np.asarray(last.parameters["layers"]["kernel"][name], np.float64) for name in ("a", "b"))
    assert np.any(b != 0)
    expected = frozen["layers"]["kernel"] + 3.0 / 2 * np.stack([a[0] @ b[0], a[1] @ b[1]])
    np.testing.assert_allclose(merged["layers"]["kernel"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(merged["layers"]["bias"], frozen["layers"]["bias"])
    # The loss at the merged parameters is that of the wrapped objective.
    batch = jax.tree.map(jnp.asarray, next(Source().client_batches("client2", 0)))
    others = (jax.random.key(0), jnp.int32(0))
    wrapped = part.value_and_grad(last.parameters, {}, partial.Held(frozen, batch), *others)[2]["loss"][0]
    np.testing.assert_allclose(
        Layers.value_and_grad(merged, {}, batch, *others)[2]["loss"][0], wrapped, rtol=1e-6
    )


def test_gradients_of_low_rank_changes_are_those_of_the_product():
    part = partial.lora(Layers, ["head/kernel"], rank=1)
    trained, frozen = split(part)
    trained["head"]["kernel"]["b"] += 0.7
    batch = jax.tree.map(jnp.asarray, next(Source().client_batches("client2", 0)))
    others = (jax.random.key(0), jnp.int32(0))
    found = part.value_and_grad(trained, {}, partial.Held(frozen, batch), *others)[0]["head"]["kernel"]
    whole = Layers.value_and_grad(part.merge(trained, frozen), {}, batch, *others)[0]["head"]["kernel"]
    a, b = (trained["head"]["kernel"][name] for name in ("a", "b"))
    np.testing.assert_allclose(found["a"], whole @ b.T, rtol=1e-5)
    np.testing.assert_allclose(found["b"], a.T @ whole, rtol=1e-5)


def test_parts_compose_with_algorithms_and_codecs_and_send_their_own_bytes():
    part = partial.lora(Layers, ["layers/kernel"], rank=1)
    trained, frozen = split(part)
    algorithm = compressed(scaffold(), codec("q8"), codec("bf16"))
    last = train(part, partial.WithFrozen(Source(), frozen), algorithm=algorithm)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(last.parameters))
    assert np.any(last.parameters["layers"]["kernel"]["b"] != 0)
    training = LocalTraining(part, optax.identity(), lambda step: jnp.float32(RATE))
    sent = client_transfers(algorithm, training, trained)
    assert sent == (2 * 12 + 4 * 12, 2 * 2 * (6 + 4))  # A and B of two layers, 6 values each; and the control


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda: partial.train_only(Layers, ["head/*", "heads"]),
            "no parameter matches 'heads'.*head/kernel",
        ),
        (lambda: partial.train_only(Layers, lambda path: False), "none of 3 parameters is chosen"),
        (lambda: partial.train_only(Layers, []), "none of 3 parameters is chosen"),
        (lambda: partial.lora(Layers, ["layers/bias", "*"], 4), "head/kernel must be between 1 and 2, got 4"),
        (lambda: partial.lora(Layers, ["*"], 0), "must be between 1 and 2, got 0"),
        (lambda: partial.lora(Objective, ["w"], 1), r"w has shape \[3\]: low-rank changes need kernels"),
    ],
)
def test_parts_that_cannot_be_trained_are_refused(make, why):
    part = make()
    with pytest.raises(FederationError, match=why):
        part.init(jax.random.key(0))
