"""Methods that take less memory train as the plain step does, and not only differentiate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.costs.step import training_step
from experiments.costs.step.training_step import StepSettings
from tests.configs import SMALL
from w2v_jax import memory_methods
from w2v_jax.batch import Batch
from w2v_jax.config import SAMPLE_RATE_HZ
from w2v_jax.data.batches.crops import make_batch
from w2v_jax.data.common_voice import load_corpus
from w2v_jax.errors import UserError

STEPS = 10
TOLERANCE = 1e-4


def losses_of(settings, batches, config=None):
    """Loss of every step of one training."""
    step = training_step.build(settings, config)
    run = jax.jit(step.function, donate_argnums=0)
    state = jax.jit(step.begin)(jax.random.key(0))
    found = []
    for index, batch in enumerate(batches):
        state, loss = run(state, batch, jax.random.key(index), jnp.int32(index))
        found.append(float(loss))
    return np.array(found)


def noise_batches(samples):
    rng = np.random.default_rng(0)
    for index in range(STEPS):
        lengths = np.array([samples, samples // 2, samples - 100], np.int32)
        waveform = (0.1 * rng.standard_normal((3, samples))).astype(np.float32)
        waveform *= np.arange(samples)[None] < lengths[:, None]
        yield Batch(waveform, lengths, np.arange(3, dtype=np.uint32) + np.uint32(3 * index))


@pytest.mark.parametrize(
    ("optimizer", "method"),
    [
        pytest.param("adamw", "exact", marks=pytest.mark.slow),
        pytest.param("sgd", "layerwise,remat", marks=pytest.mark.slow),
        pytest.param("sgd", "exact", marks=pytest.mark.slow),
        pytest.param("adafactor", "exact", marks=pytest.mark.slow),
        pytest.param("lion", "remat,micro-2", marks=pytest.mark.slow),
    ],
)
def test_ten_steps_follow_the_plain_losses(optimizer, method):
    settings = StepSettings(model="tiny", seconds=0.2, batch=3, optimizer=optimizer)
    config = SMALL.replace(dropout=0.1, attention_dropout=0.1, layer_drop=0.2)
    if memory_methods.is_layerwise(method):  # which does not clip: gradients that are not clipped either
        config = config.replace(
            contrastive_temperature=20.0, diversity_weight=0.0, feature_penalty_weight=0.0
        )
    with_method = StepSettings(model="tiny", seconds=0.2, batch=3, optimizer=optimizer, method=method)
    small = memory_methods.configured(config, method)
    if small.encoder_block_frames:
        small = small.replace(
            encoder_block_frames=20,
            attention_block_frames=25,
            feed_forward_block_frames=25,
            similarity_block_frames=25,
        )
    batches = list(noise_batches(settings.samples))
    plain, other = losses_of(settings, batches, config), losses_of(with_method, batches, small)
    np.testing.assert_allclose(other, plain, rtol=TOLERANCE)
    assert len(set(plain)) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tiny", "base", "large-lv60"])
def test_ten_steps_of_recorded_speech_follow_the_plain_losses(corpora, model, monkeypatch):
    """With SGD at a rate at which the loss moves by far more than the tolerance."""

    def losses(method, rate):
        monkeypatch.setattr(training_step, "LEARNING_RATE", rate)
        return losses_of(
            StepSettings(model=model, seconds=3.0, batch=2, optimizer="sgd", method=method), batches
        )

    clips = load_corpus(corpora / "speechocean762" / "en", "test", min_samples=2 * SAMPLE_RATE_HZ).clips
    samples = 3 * SAMPLE_RATE_HZ
    batches = [
        make_batch(
            clips[2 * index : 2 * index + 2],
            [None, None],
            [0, 0],
            batch_size=2,
            crop_samples=samples,
        )
        for index in range(STEPS)
    ]
    plain, exact = losses("plain", 1e-2), losses("exact", 1e-2)
    # Batches differ, so that a loss that moves says little: the same model without its steps does not.
    still = losses("plain", 0.0)
    assert np.abs(plain - still).max() > 20 * TOLERANCE * plain[0]
    np.testing.assert_allclose(exact, plain, rtol=TOLERANCE)


def test_what_does_not_go_together_is_said():
    with pytest.raises(UserError, match="needs --optimizer sgd"):
        training_step.build(StepSettings(model="tiny", seconds=0.2, batch=1, method="layerwise"))
    with pytest.raises(UserError, match="cannot undo a step, which fp16 needs"):
        training_step.build(
            StepSettings(
                model="tiny", seconds=0.2, batch=1, method="layerwise", optimizer="sgd", precision="fp16"
            )
        )


@pytest.mark.slow
def test_half_precision_scales_the_loss_of_micro_batches():
    settings = StepSettings(model="tiny", seconds=0.2, batch=3, precision="fp16", method="remat,micro-1")
    config = SMALL.replace(compute_dtype="float16")
    batches = list(noise_batches(settings.samples))[:3]
    micro = losses_of(settings, batches, memory_methods.configured(config, settings.method))
    whole = losses_of(settings, batches, config)
    np.testing.assert_allclose(micro, whole, rtol=2e-2)
