import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.costs.step import training_step
from experiments.costs.step.training_step import StepSettings
from tests.configs import SMALL
from w2v_jax.batch import Batch

# Gradients of a norm below one, which the optimizer does not clip: clipped ones hide a scale.
CALM = SMALL.replace(contrastive_temperature=20.0, diversity_weight=0.0, feature_penalty_weight=0.0)
SETTINGS = StepSettings(model="tiny", seconds=0.2, batch=2, precision="fp16")


def make_batch():
    waveform = np.random.default_rng(0).standard_normal((2, SETTINGS.samples)).astype(np.float32)
    full = jnp.full(2, SETTINGS.samples, jnp.int32)
    return Batch(jnp.asarray(0.1 * waveform), full, jnp.arange(2, dtype=jnp.uint32))


@pytest.fixture(scope="module")
def steps():
    """Steps in fp32 and fp16 with the same first state, each with its program."""
    plain = training_step.build(SETTINGS, CALM)
    scaled = training_step.build(SETTINGS, CALM.replace(compute_dtype="float16"))
    return plain, jax.jit(plain.function), scaled, jax.jit(scaled.function)


@pytest.mark.slow
def test_half_precision_trains_like_single(steps):
    plain, run_plain, scaled, run_scaled = steps
    states = [step.begin(jax.random.key(0)) for step in (plain, scaled)]
    losses = []
    for index in range(3):
        arguments = (make_batch(), jax.random.key(index), jnp.int32(index))
        results = [run(state, *arguments) for run, state in zip((run_plain, run_scaled), states, strict=True)]
        states = [state for state, _ in results]
        losses.append([float(loss) for _, loss in results])
    for single, half in losses:
        assert half == pytest.approx(single, rel=2e-2)  # a frame may choose another code
    assert losses[0][0] != losses[2][0]
    assert states[1][2].good_steps == 3
    assert states[1][2].scale == training_step.INITIAL_LOSS_SCALE
    # The reported loss and the gradients are unscaled: the moments are those of the fp32 step.
    single, half = (
        jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(state[1]) if leaf.ndim]) for state in states
    )
    assert 0 < jnp.linalg.norm(single) < 0.3
    assert jnp.linalg.norm(half - single) < 0.3 * jnp.linalg.norm(single)


@pytest.mark.slow
def test_gradients_that_overflow_change_the_scale_alone(steps):
    _, _, scaled, run_scaled = steps
    parameters, optimizer_state, scale = scaled.begin(jax.random.key(0))
    huge = scale._replace(scale=jnp.float32(2.0**40), good_steps=jnp.int32(7))
    arguments = (make_batch(), jax.random.key(0), jnp.int32(0))
    after, loss = run_scaled((parameters, optimizer_state, huge), *arguments)
    for old, new in zip(
        jax.tree.leaves((parameters, optimizer_state)), jax.tree.leaves(after[:2]), strict=True
    ):
        np.testing.assert_array_equal(old, new)
    assert after[2].scale == 2.0**39
    assert after[2].good_steps == 0
    assert jnp.isfinite(loss)
