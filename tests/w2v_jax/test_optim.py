import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from w2v_jax.optim import OptimizerConfig, clip_by_global_norm, make_learning_rate, make_optimizer


def test_warm_up_then_linear_decay():
    rate = make_learning_rate(
        OptimizerConfig(learning_rate=1.0, warmup_steps=10, total_steps=110, final_share=0.1)
    )
    values = {step: float(rate(jnp.int32(step))) for step in (0, 4, 9, 59, 109, 500)}
    expected = {0: 0.1, 4: 0.5, 9: 1.0, 59: 0.55, 109: 0.1, 500: 0.1}
    np.testing.assert_allclose(list(values.values()), list(expected.values()), rtol=1e-5)


def test_adamw_equals_optax():
    config = OptimizerConfig(learning_rate=0.3, clip_norm=None)
    parameters = {"w": jnp.arange(3.0)}
    gradients = {"w": jnp.array([1.0, -2.0, 0.5])}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        reference = optax.adamw(0.3, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01)
        expected, _ = reference.update(gradients, reference.init(parameters), parameters)
        ours = make_optimizer(config)
        updates, _ = ours.update(gradients, ours.init(parameters), parameters)
    np.testing.assert_allclose(-0.3 * updates["w"], expected["w"], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "arrays"),
    [
        ({"name": "adamw"}, 2.0),
        ({"name": "adamw", "state_dtype": "bfloat16"}, 1.5),
        ({"name": "lion"}, 1.0),
        ({"name": "lion", "state_dtype": "bfloat16"}, 0.5),
        ({"name": "adafactor"}, 0.02),
        ({"name": "sgd"}, 0.0),
        ({"name": "adamw", "frozen": ("feature_encoder",)}, 1.0),
    ],
)
def test_the_state_that_an_optimizer_keeps(changes, arrays):
    """In arrays of the parameters' size; and every one of them goes downhill."""
    parameters = {
        "feature_encoder": {"kernel": jnp.ones((256, 256))},
        "project": {"kernel": 2.0 * jnp.ones((256, 256))},
    }
    optimizer = make_optimizer(OptimizerConfig(**changes))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        state = jax.jit(optimizer.init)(parameters)
        updates, _ = jax.jit(optimizer.update)(parameters, state, parameters)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert size / sum(leaf.nbytes for leaf in jax.tree.leaves(parameters)) == pytest.approx(arrays, abs=0.02)
    assert (updates["project"]["kernel"] > 0).all()
    frozen = "frozen" in changes
    assert (updates["feature_encoder"]["kernel"] == 0.0).all() == frozen


def test_clipping_is_optaxs_and_takes_no_array_of_a_parameters_size():
    gradients = {"stack": jax.random.normal(jax.random.key(0), (12, 64, 512)), "bias": jnp.arange(7.0)}
    for limit in (1.0, 1e6):
        ours, reference = clip_by_global_norm(limit), optax.clip_by_global_norm(limit)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            found, _ = ours.update(gradients, ours.init(gradients))
            expected, _ = reference.update(gradients, reference.init(gradients))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)

    def descend(parameters, gradients):
        updates, _ = clip_by_global_norm(1.0).update(gradients, optax.EmptyState())
        return jax.tree.map(lambda p, u: p - 0.1 * u, parameters, updates)

    compiled = jax.jit(descend, donate_argnums=0).lower(gradients, gradients).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < gradients["stack"].nbytes / 4


def test_sgd_with_clipping():
    optimizer = make_optimizer(OptimizerConfig(name="sgd", clip_norm=1.0))
    gradients = {"w": jnp.array([3.0, 4.0])}
    updates, _ = optimizer.update(gradients, optimizer.init(gradients), gradients)
    np.testing.assert_allclose(updates["w"], [0.6, 0.8], rtol=1e-6)
