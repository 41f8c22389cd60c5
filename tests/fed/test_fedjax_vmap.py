"""Compare fedjax's algorithms through the vmap backend with fedjax's jit backend."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fed.fedjax_compat import restore_removed_names
from fed.fedjax_vmap import vmap_backend
from fed.protocols import FederationError

with warnings.catch_warnings():
    # fedjax 0.0.17 has an invalid escape sequence, and haiku touches deprecated jax names.
    warnings.simplefilter("ignore")
    import fedjax
    from fedjax.core import for_each_client

JIT = for_each_client.ForEachClientJitBackend()


@pytest.fixture(autouse=True)
def _fedjax_runs():
    restore_removed_names()


def client_init(shared, key):
    return {"w": shared["w"], "steps": jnp.int32(0), "key": key}


def client_step(state, batch):
    key, use = jax.random.split(state["key"])
    error = batch["x"] @ state["w"] - batch["y"] + 0.01 * jax.random.normal(use, batch["y"].shape)
    w = state["w"] - 0.05 * batch["x"].T @ error / len(batch["y"])
    return {"w": w, "steps": state["steps"] + 1, "key": key}, {"loss": jnp.square(error).mean()}


def client_final(shared, state):
    return {"update": state["w"] - shared["w"], "steps": state["steps"]}


def clients(batches, sizes=(4,), seed=0):
    """Make clients with `batches` batches each; `sizes` of batches take turns."""
    rng = np.random.default_rng(seed)
    made = []
    for index, count in enumerate(batches):
        held = []
        for number in range(count):
            x = rng.standard_normal((sizes[number % len(sizes)], 3)).astype(np.float32)
            held.append({"x": x, "y": x.sum(1)})
        made.append((f"client{index}".encode(), held, jax.random.PRNGKey(index)))
    return made


SHARED = {"w": jnp.zeros(3)}


def assert_same(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert [name for name, *_ in ours] == [name for name, *_ in theirs]
    for (_, output, results), (_, expected, steps) in zip(ours, theirs, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), output, expected)
        assert len(results) == len(steps)
        for mine, other in zip(results, steps, strict=True):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), mine, other)


@pytest.mark.parametrize("chunk", [1, 2, 3, 8])
@pytest.mark.parametrize("batches", [(3, 3, 3), (5, 1, 0, 2, 4), (0, 0), (1,)], ids=str)
def test_every_client_comes_out_as_from_fedjaxs_own_backend(chunk, batches):
    functions = (client_init, client_step, client_final)
    ours = vmap_backend(chunk)(*functions)(SHARED, clients(batches))
    assert_same(ours, JIT(*functions)(SHARED, clients(batches)))


def test_smaller_last_batches_run_shape_by_shape():
    functions = (client_init, client_step, client_final)
    given = [(4, 2), (4,), (4, 3)]
    made = [clients((2,), sizes, seed)[0] for seed, sizes in enumerate(given)]
    made = [(f"client{i}".encode(), batches, key) for i, (_, batches, key) in enumerate(made)]
    assert_same(vmap_backend(3)(*functions)(SHARED, made), JIT(*functions)(SHARED, made))


def test_clients_whose_inputs_differ_in_shape_run_shape_by_shape_and_keep_their_order():
    """fedjax's APFL has such clients: those that it met before bring their own parameters."""

    def init(shared, client_input):
        return {"w": shared["w"] + jnp.atleast_2d(client_input["bias"]).sum(0).astype(jnp.float32)}

    def step(state, batch):
        return {"w": state["w"] + batch["x"].sum(0)}, {"size": jnp.float32(len(batch["y"]))}

    def final(shared, state):
        return state["w"] - shared["w"]

    shapes = [(3,), (2, 3), (3,), (), (2, 3)]
    made = [
        (name, batches, {"bias": np.full(shape, index + 1, np.float32)})
        for index, ((name, batches, _), shape) in enumerate(
            zip(clients((2, 1, 0, 3, 2)), shapes, strict=True)
        )
    ]
    made[2] = (*made[2][:2], {"bias": jnp.int32(2)})  # another dtype
    for chunk in (2, 8):
        assert_same(
            vmap_backend(chunk)(init, step, final)(SHARED, made), JIT(init, step, final)(SHARED, made)
        )


def test_inputs_of_unlike_structure_and_new_style_keys_work():
    def init(shared, client_input):
        noise = jax.random.normal(client_input["key"], (3,)) if "key" in client_input else 0.0
        return {"w": shared["w"] + noise}

    def step(state, batch):
        return {"w": state["w"] + batch["x"].sum(0)}, ()

    def final(shared, state):
        return state["w"]

    inputs = [{"key": jax.random.key(1)}, {}, {"key": jax.random.key(2)}]
    made = [(name, b, given) for (name, b, _), given in zip(clients((2, 1, 2)), inputs, strict=True)]
    assert_same(vmap_backend(3)(init, step, final)(SHARED, made), JIT(init, step, final)(SHARED, made))


def test_clip_takes_its_old_names_for_bounds():
    values = jnp.array([-1.0, 0.5, 2.0])
    old: dict = {"a_min": 0, "a_max": 1}
    for found in (jnp.clip(values, **old), jnp.clip(values, 0, 1), jnp.clip(values, min=0, max=1)):
        np.testing.assert_array_equal(found, [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(jnp.clip(values, max=1), [-1.0, 0.5, 1.0])
    before = jnp.clip
    restore_removed_names()
    assert jnp.clip is before


def test_only_a_chunk_of_clients_is_read_at_a_time():
    read = []

    def lazily():
        for client in clients((2, 2, 2, 2, 2)):
            read.append(client[0])
            yield client

    run = vmap_backend(2)(client_init, client_step, client_final)(SHARED, lazily())
    next(run)
    assert len(read) == 2


def test_algorithms_without_step_results_or_inputs_work():
    def init(shared, client_input):
        return shared

    def step(state, batch):
        return {"w": state["w"] + batch["x"].sum(0)}, ()

    def final(shared, state):
        return state["w"]

    made = [(name, batches, {}) for name, batches, _ in clients((2, 1, 3))]
    assert_same(vmap_backend(2)(init, step, final)(SHARED, made), JIT(init, step, final)(SHARED, made))


@pytest.mark.parametrize("name", ["fed_avg", "mime_lite"])
def test_fedjaxs_algorithms_give_the_same_parameters(name):
    rng = np.random.default_rng(0)
    data = fedjax.InMemoryFederatedData(
        {
            f"client{i}".encode(): {
                "x": (x := rng.standard_normal((5 + 3 * i, 6)).astype(np.float32)),
                "y": x.sum(1),
            }
            for i in range(5)
        }
    )

    def gradient(parameters, batch, key):
        def loss(p):
            return jnp.square(jnp.tanh(batch["x"] @ p["w"]) @ p["v"] - batch["y"]).mean()

        return jax.grad(loss)(parameters)

    hparams = fedjax.ShuffleRepeatBatchHParams(batch_size=4, num_epochs=2, seed=0)

    def train(backend):
        # fedjax's own arithmetic does not pass strict promotion.
        with (
            for_each_client.for_each_client_backend(backend),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
        ):
            if name == "fed_avg":
                algorithm = fedjax.algorithms.fed_avg.federated_averaging(
                    gradient, fedjax.optimizers.sgd(0.1), fedjax.optimizers.sgd(1.0), hparams
                )
            else:
                algorithm = fedjax.algorithms.mime_lite.mime_lite(
                    lambda p, batch, key: jnp.square(batch["x"] @ p["w"] @ p["v"] - batch["y"]),
                    fedjax.optimizers.sgd(0.1, momentum=0.5), hparams,
                    fedjax.PaddedBatchHParams(batch_size=4), 1.0,
                )  # fmt: skip
            state = algorithm.init({"w": jnp.ones((6, 4)) * 0.1, "v": jnp.linspace(-1, 1, 4)})
            for round_index in range(3):
                keys = jax.random.split(jax.random.PRNGKey(round_index), 5)
                cohort = [
                    (name, dataset, key) for (name, dataset), key in zip(data.clients(), keys, strict=True)
                ]
                state, _ = algorithm.apply(state, cohort)
            return state.params

    ours, theirs = train(vmap_backend(2)), train("jit")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


def test_a_chunk_below_one_is_refused():
    with pytest.raises(FederationError, match="at least 1, got 0"):
        vmap_backend(0)
