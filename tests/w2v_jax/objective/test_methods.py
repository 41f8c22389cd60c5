"""Methods that take less memory give the plain step's gradients."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.configs import LOG_MEL
from w2v_jax import memory_methods
from w2v_jax.batch import Batch
from w2v_jax.config import TINY, ModelConfig
from w2v_jax.errors import UserError
from w2v_jax.model.time_blocks import balanced
from w2v_jax.objective.pretraining import pretraining_objective

SAMPLES = 24_000
TOLERANCE = 1e-5  # relative norm
BASE_LIKE = TINY.replace(
    pre_norm=False,
    dropout=0.1,
    attention_dropout=0.1,
    activation_dropout=0.1,
    input_dropout=0.1,
    feature_dropout=0.1,
    layer_drop=0.3,
    feature_penalty_weight=10.0,
    encoder_gradient_scale=0.1,
    diversity_warmup_updates=0,
)
VARIANTS = {
    "base": BASE_LIKE,
    "base-masked-norm": BASE_LIKE.replace(masked_group_norm=True),
    "large-lv60": BASE_LIKE.replace(
        feature_norm="layer", conv_bias=True, normalise_waveform=True, pre_norm=True
    ),
    "log-mel": BASE_LIKE.replace(**LOG_MEL),
    "best-rq": BASE_LIKE.replace(
        **LOG_MEL, objective="best-rq", pre_norm=True, target_codebooks=2, target_entries=12, target_dim=4
    ),
}
# The plain tests of each variant; `exact` combines nearly all methods.
MOSTLY_SLOW = {
    "base": ("exact",),
    "base-masked-norm": (),
    "large-lv60": (),
    "log-mel": (),
    "best-rq": ("exact",),
}


def cut_up(config: ModelConfig, method: str) -> ModelConfig:
    """A configuration with a method, and with small blocks where it has blocks."""
    config = memory_methods.configured(config, method)
    return config.replace(**{name: value for name, value in SMALL_BLOCKS.items() if getattr(config, name)})


# Small blocks, so that a second and a half of speech has several, and a last one that is not full.
SMALL_BLOCKS = {
    "encoder_block_frames": 20,
    "attention_block_frames": 30,
    "feed_forward_block_frames": 30,
    "similarity_block_frames": 30,
}


def batch_of(lengths=(SAMPLES, SAMPLES // 2, SAMPLES // 3, 1500, SAMPLES - 777)) -> Batch:
    """Noise of unequal lengths: unequal masked counts, and a clip too short for any."""
    samples = jnp.array(lengths, jnp.int32)
    waveform = 0.1 * jax.random.normal(jax.random.key(1), (len(lengths), max(lengths)))
    inside = jnp.arange(max(lengths))[None] < samples[:, None]
    return Batch(
        jnp.where(inside, waveform, 0.0), samples, jnp.arange(len(lengths), dtype=jnp.uint32) + jnp.uint32(5)
    )


def norm(tree) -> float:
    return math.sqrt(sum(float(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(tree)))


def distance(one, other) -> float:
    return norm(jax.tree.map(jnp.subtract, one, other)) / norm(other)


def gradients_of(config: ModelConfig, batch: Batch, parameters=None):
    objective = pretraining_objective(config)
    parameters = parameters or jax.jit(objective.init)(jax.random.key(0))[0]
    gradients, _, sums = jax.jit(objective.value_and_grad)(
        parameters, {}, batch, jax.random.key(5), jnp.int32(7)
    )
    return gradients, sums


@pytest.fixture(scope="module")
def plain():
    return functools.cache(lambda name: gradients_of(VARIANTS[name], batch_of()))


def exact_combinations(config: ModelConfig):
    """Methods that the model has the parts for."""
    single = [name for name in memory_methods.EXACT if name not in ("micro-N", "layerwise")]
    some = [*single, "micro-1", "micro-2", "micro-5", "micro-7", "remat", "exact", "encoder-blocks,micro-2"]
    return [method for method in some if not set(method.split(",")) & set(memory_methods.lacking(config))]


def test_blocks_are_of_nearly_one_width():
    cut = balanced(274, 128)
    assert (cut.count, cut.width) == (3, 92)
    values = jax.random.normal(jax.random.key(0), (2, 274, 5))
    assert cut.cut(values).shape == (3, 2, 92, 5)
    np.testing.assert_array_equal(cut.cut(values)[1, :, 3], values[:, 95])
    np.testing.assert_array_equal(cut.join(cut.cut(values)), values)
    assert cut.starts.tolist() == [0, 92, 184]
    for time, width in ((5, None), (5, 5), (5, 9)):
        assert balanced(time, width)[1:] == (1, 5)
    for time in range(1, 60):
        cut = balanced(time, 7)
        assert cut.width <= 7
        assert 0 <= cut.count * cut.width - time < cut.count


@pytest.mark.parametrize(
    ("variant", "method"),
    [
        pytest.param(
            variant, method, marks=[pytest.mark.slow] * (method not in MOSTLY_SLOW.get(variant, (method,)))
        )
        for variant in VARIANTS
        for method in exact_combinations(VARIANTS[variant])
    ],
)
def test_exact_methods_give_the_plain_gradients(plain, variant, method):
    gradients, sums = gradients_of(cut_up(VARIANTS[variant], method), batch_of())
    expected, expected_sums = plain(variant)
    assert jax.tree.structure(gradients) == jax.tree.structure(expected)
    assert distance(gradients, expected) < TOLERANCE
    for name, total in expected_sums.items():
        np.testing.assert_allclose(sums[name].total, total.total, rtol=1e-4, atol=1e-5, err_msg=name)
        assert sums[name].weight == total.weight


@pytest.mark.slow
def test_the_diversity_loss_is_what_needs_the_first_pass(plain):
    """Micro-batches with diversity losses of their own would be another gradient, by far."""
    config = BASE_LIKE.replace(diversity_weight=1.0)
    whole, _ = gradients_of(config, batch_of())
    parts = []
    batch = batch_of()
    for row in range(len(batch.num_samples)):
        gradients, sums = gradients_of(config, jax.tree.map(lambda leaf, r=row: leaf[r : r + 1], batch))
        parts.append((gradients, float(sums["loss"].weight)))
    frames = sum(weight for _, weight in parts)
    mean = jax.tree.map(
        lambda *leaves: sum(w / frames * leaf for leaf, (_, w) in zip(leaves, parts, strict=True)),
        *[gradients for gradients, _ in parts],
    )
    assert distance(mean, whole) > 100 * TOLERANCE
    assert distance(gradients_of(config.replace(micro_batch=1), batch)[0], whole) < TOLERANCE


@pytest.mark.slow
def test_features_of_a_large_batch_are_computed_again(plain, monkeypatch):
    from w2v_jax.objective import accumulation

    monkeypatch.setattr(accumulation, "KEPT_FEATURES_BYTES", 0)
    gradients, _ = gradients_of(BASE_LIKE.replace(micro_batch=2), batch_of())
    assert distance(gradients, plain("base")[0]) < TOLERANCE


@pytest.mark.parametrize(
    ("variant", "method"),
    [
        pytest.param("base", "plain", marks=pytest.mark.slow),
        ("base", "exact"),
        ("best-rq", "micro-2"),
    ],
)
def test_a_batch_without_masked_frames_teaches_nothing(variant, method):
    config = memory_methods.configured(VARIANTS[variant], method)
    gradients, sums = gradients_of(config, batch_of((700, 900)))
    assert norm(gradients) == 0.0
    assert sums["loss"].weight == 0.0


LAYERWISE = "layerwise,remat-layers,remat-attention,remat-feed-forward,remat-similarity"
LAYERWISE_PLAIN = (("base", "layerwise"), ("best-rq", LAYERWISE))


@pytest.mark.parametrize(
    ("variant", "method"),
    [
        pytest.param(name, method, marks=[pytest.mark.slow] * ((name, method) not in LAYERWISE_PLAIN))
        for name, config in VARIANTS.items()
        for method in (
            ("layerwise", f"{LAYERWISE},encoder-blocks") if config.front_end == "waveform" else (LAYERWISE,)
        )
    ],
)
def test_layerwise_descends_by_the_plain_gradients(plain, variant, method):
    objective = pretraining_objective(cut_up(VARIANTS[variant], method))
    parameters = jax.jit(objective.init)(jax.random.key(0))[0]
    assert objective.descend is not None
    after, _, sums = jax.jit(objective.descend)(
        parameters, {}, batch_of(), jax.random.key(5), jnp.int32(7), jnp.float32(0.5)
    )
    expected, expected_sums = plain(variant)
    expected_after = jax.tree.map(lambda p, g: p - 0.5 * g, parameters, expected)
    moved = jax.tree.map(jnp.subtract, after, parameters)
    assert distance(moved, jax.tree.map(jnp.subtract, expected_after, parameters)) < TOLERANCE
    np.testing.assert_allclose(sums["loss"].total, expected_sums["loss"].total, rtol=1e-5)


@pytest.mark.parametrize("variant", [pytest.param("base", marks=pytest.mark.slow), "best-rq"])
def test_methods_work_under_vmap(variant):
    """As in a round: every client has parameters of its own."""
    objective = pretraining_objective(cut_up(VARIANTS[variant], "exact").replace(convolution_form="product"))
    parameters = jax.jit(jax.vmap(lambda key: objective.init(key)[0]))(jax.random.split(jax.random.key(0)))
    batches = jax.tree.map(
        lambda *leaves: jnp.stack(leaves),
        batch_of(),
        batch_of()._replace(utterance_id=jnp.arange(5, dtype=jnp.uint32) + jnp.uint32(50)),
    )
    together, _, _ = jax.jit(jax.vmap(objective.value_and_grad, (0, None, 0, None, None)))(
        parameters, {}, batches, jax.random.key(5), jnp.int32(7)
    )
    for client in range(2):
        alone, _ = gradients_of(
            VARIANTS[variant],
            jax.tree.map(lambda leaf, c=client: leaf[c], batches),
            jax.tree.map(lambda leaf, c=client: leaf[c], parameters),
        )
        assert distance(jax.tree.map(lambda leaf, c=client: leaf[c], together), alone) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "method"),
    [
        pytest.param("base", "plain", marks=pytest.mark.slow),
        pytest.param("base", "exact", marks=pytest.mark.slow),
        pytest.param("best-rq", "plain", marks=pytest.mark.slow),
        ("best-rq", "exact"),
    ],
)
def test_loss_scale_multiplies_gradients(variant, method):
    objective = pretraining_objective(memory_methods.configured(VARIANTS[variant], method))
    parameters = jax.jit(objective.init)(jax.random.key(0))[0]
    given = (parameters, {}, batch_of(), jax.random.key(5), jnp.int32(7))
    one, _, _ = jax.jit(objective.value_and_grad)(*given)
    scaled, _, sums = jax.jit(objective.value_and_grad)(*given, jnp.float32(1024.0))
    assert distance(jax.tree.map(lambda leaf: leaf / 1024.0, scaled), one) < TOLERANCE
    assert float(sums["loss"].total) / float(sums["loss"].weight) < 100


@pytest.mark.parametrize(
    "method", ["frozen-encoder", pytest.param("frozen-encoder,exact", marks=pytest.mark.slow)]
)
def test_a_frozen_encoder_gets_no_gradient(method):
    gradients, _ = gradients_of(memory_methods.configured(BASE_LIKE, method), batch_of())
    assert norm(gradients["feature_encoder"]) == 0.0
    assert norm(gradients["context_network"]) > 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "method"),
    [pytest.param("base", "truncated-1", marks=pytest.mark.slow), ("best-rq", "truncated-1,micro-2")],
)
def test_truncated_clips_are_the_beginnings_of_clips(variant, method):
    batch = batch_of()
    cut = batch._replace(
        waveform=batch.waveform[:, :16_000], num_samples=jnp.minimum(batch.num_samples, 16_000)
    )
    found, sums = gradients_of(memory_methods.configured(VARIANTS[variant], method), batch)
    expected, expected_sums = gradients_of(VARIANTS[variant], cut)
    assert distance(found, expected) <= 1e-6
    assert sums["audio_seconds"].total == expected_sums["audio_seconds"].total


def test_every_method_changes_the_configuration_that_it_names():
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    for name, method in memory_methods.METHODS.items():
        assert set(method.changes) <= fields, name
        assert method.changes or method.optimizer
        assert method.about.startswith("inexact") == (name in memory_methods.INEXACT)


@pytest.mark.parametrize(
    ("variant", "method", "words"),
    [
        ("log-mel", "encoder-blocks,micro-2", "encoder-blocks is for convolutions"),
        ("best-rq", "frozen-encoder", "frozen-encoder is for convolutions"),
        ("best-rq", "gathered-negatives", "gathered-negatives is for the contrastive task"),
    ],
)
def test_methods_of_parts_that_a_model_lacks_are_refused(variant, method, words):
    with pytest.raises(UserError, match=words):
        memory_methods.configured(VARIANTS[variant], method)


def test_names_combine():
    assert memory_methods.configured(TINY, "plain") == TINY
    assert memory_methods.configured(TINY, "remat,micro-2").micro_batch == 2
    assert memory_methods.configured(TINY, "truncated-2.5").truncate_seconds == 2.5
    exact = memory_methods.configured(TINY, "exact")
    assert exact.micro_batch == 1
    assert exact.encoder_block_frames
    assert exact.attention_block_frames
    assert exact.feed_forward_block_frames
    assert memory_methods.is_exact("exact")
    assert memory_methods.is_exact("plain")
    assert memory_methods.is_exact("remat,layerwise")
    assert not memory_methods.is_exact("exact,frozen-encoder")
    assert memory_methods.optimizer_changes("bf16-state,frozen-encoder") == {
        "state_dtype": "bfloat16",
        "frozen": ("feature_encoder",),
    }


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("exct", "did you mean exact"),
        ("micro-0", "must be positive"),
        ("micro-1.5", "whole"),
        ("micro", "micro-N"),
        ("micro-1,micro-2", "contradict"),
        ("exact,micro-2", "contradict"),
        ("layerwise,micro-1", "added up first"),
        ("", "unknown method ''"),
    ],
)
def test_wrong_names_are_named(method, words):
    with pytest.raises(UserError, match=words):
        memory_methods.names_of(method)


def test_older_runs_had_one_setting_for_both():
    values = dataclasses.asdict(TINY)
    del values["rematerialise_cnn"], values["rematerialise_layers"]
    config = ModelConfig.from_dict(values | {"rematerialise": True})
    assert config.rematerialise_cnn
    assert config.rematerialise_layers


def test_blocks_must_have_a_size():
    with pytest.raises(ValueError, match="micro_batch must be positive"):
        TINY.replace(micro_batch=0)
