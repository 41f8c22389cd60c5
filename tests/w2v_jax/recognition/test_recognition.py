"""Updates of a recognizer and its learning rates, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from w2v_jax.batch import LabelledBatch, Total
from w2v_jax.objective.pretraining import Objective
from w2v_jax.recognition.training import (
    NewBob,
    TrainingState,
    initial_state,
    make_optimizer,
    make_update,
    tri_stage,
)

BATCH = LabelledBatch(
    jnp.zeros((1, 4)), jnp.ones(1, jnp.int32), jnp.ones(1, jnp.uint32), jnp.ones((1, 1), jnp.int32),
    jnp.ones(1, jnp.int32),
)  # fmt: skip
GRADIENTS = {"encoder": {"w": jnp.array([0.3, -0.2, 0.0])}, "head": {"w": jnp.array([0.5, -0.1])}}


def giving(gradients):
    """An objective whose gradients are these, and whose statistics count updates."""

    def init(key):
        return {"encoder": {"w": jnp.arange(3.0)}, "head": {"w": jnp.array([1.0, -1.0])}}, {
            "n": jnp.zeros(())
        }

    def value_and_grad(parameters, state, batch, key, step):
        return gradients, {"n": state["n"] + 1.0}, {"loss": Total(jnp.float32(2.0), jnp.float32(1.0))}

    def nothing(*arguments):
        raise AssertionError

    return Objective(init, nothing, value_and_grad, nothing, nothing)


def run(gradients, rates, head="adam", clip_norm=100.0, updates=1):
    made, optimizer = giving(gradients), make_optimizer(head, clip_norm)
    state = initial_state(made, optimizer, jax.random.key(0))
    update = jax.jit(make_update(made, optimizer))
    states = [state]
    sums = None
    for _ in range(updates):
        state, sums = update(state, BATCH, jax.random.key(1), rates)
        states.append(state)
    return states, sums


def moved(states, group):
    return np.asarray(states[-1].parameters[group]["w"] - states[0].parameters[group]["w"])


RATES = {"encoder": np.float32(0.1), "head": np.float32(0.01)}


def test_rates_act_on_their_own_group():
    states, sums = run(GRADIENTS, RATES)
    # Adam's first step has the size of the rate.
    np.testing.assert_allclose(moved(states, "encoder"), [-0.1, 0.1, 0.0], atol=1e-6)
    np.testing.assert_allclose(moved(states, "head"), [-0.01, 0.01], atol=1e-6)
    assert sums["loss"] == (2.0, 1.0)
    assert sums["skipped"] == (0.0, 1.0)
    assert float(states[-1].statistics["n"]) == 1.0


def test_a_rate_of_zero_leaves_the_encoder_alone():
    states, _ = run(GRADIENTS, {**RATES, "encoder": np.float32(0.0)}, updates=3)
    assert not moved(states, "encoder").any()
    assert moved(states, "head").all()


def test_adadelta_is_the_heads_alone():
    states, _ = run(GRADIENTS, {"encoder": np.float32(0.1), "head": np.float32(1.0)}, head="adadelta")
    np.testing.assert_allclose(moved(states, "encoder"), [-0.1, 0.1, 0.0], atol=1e-6)
    gradient = np.asarray(GRADIENTS["head"]["w"], np.float64)
    expected = -np.sqrt(1e-8) / np.sqrt(0.05 * gradient**2 + 1e-8) * gradient
    np.testing.assert_allclose(moved(states, "head"), expected, rtol=1e-4)


def test_gradients_are_clipped_by_the_norm_of_both_groups():
    # Adadelta's first step hardly depends on the size of a gradient; its state tells.
    norm = float(optax.tree.norm(GRADIENTS))
    for clip_norm, share in ((norm / 2, 0.5), (2 * norm, 1.0)):
        states, _ = run(GRADIENTS, RATES, clip_norm=clip_norm)
        for group, decay in (("encoder", 0.9), ("head", 0.9)):
            inner = states[-1].optimizer_state[1].inner_states[group].inner_state
            np.testing.assert_allclose(
                inner.mu[group]["w"], (1 - decay) * share * GRADIENTS[group]["w"], rtol=1e-5
            )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_that_are_not_finite_change_nothing_and_are_counted(bad):
    gradients = {**GRADIENTS, "head": {"w": jnp.array([bad, 0.0])}}
    states, sums = run(gradients, RATES)
    for before, after in zip(jax.tree.leaves(states[0]), jax.tree.leaves(states[1]), strict=True):
        np.testing.assert_array_equal(before, after)
    assert sums["skipped"] == (1.0, 1.0)
    # Its loss would spoil the mean of the updates that were made.
    assert sums["loss"] == (0.0, 0.0)
    assert isinstance(states[1], TrainingState)


def test_newbob_by_hand():
    newbob = NewBob()
    expected = [
        (3.0, 0),  # the first has nothing to compare with
        (2.0, 0),
        (1.996, 1),  # 0.2 % better: less than 0.25 %
        (1.990, 1),  # 0.3 %
        (2.5, 2),  # worse
        (2.4, 2),  # compared with the one before, not with the best
        (np.nan, 2),  # no observation at all
        (2.4, 3),
        (0.0, 3),
        (0.0, 4),
    ]
    for loss, falls in expected:
        newbob.observe(loss)
        assert newbob.scales["encoder"] == pytest.approx(0.9**falls)
        assert newbob.scales["head"] == pytest.approx(0.8**falls)
    assert NewBob().scales == {"encoder": 1.0, "head": 1.0}


def test_tri_stage_rises_holds_and_falls():
    rates = [tri_stage(update, 100) for update in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[10:50] == [1.0] * 40
    np.testing.assert_allclose(rates[50:], 0.05 ** (np.arange(50) / 50))
    assert tri_stage(100, 100) == pytest.approx(0.05)
    assert tri_stage(500, 100) == pytest.approx(0.05)


@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_tri_stage_of_short_runs_never_stands_still(total):
    rates = [tri_stage(update, total) for update in range(total)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == 1.0
