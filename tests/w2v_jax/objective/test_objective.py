import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.configs import OBJECTIVES, SMALL, SMALL_BEST_RQ, VARIANTS, lengthened
from w2v_jax.batch import Batch
from w2v_jax.model.quantizer import gumbel_noise, gumbel_temperature
from w2v_jax.model.wav2vec2 import normalise_waveform
from w2v_jax.objective.pretraining import (
    bind_model,
    diversity_weight,
    draw,
    pretraining_objective,
    shuffle_masked,
)

BOTH = ["wav2vec2", "best-rq"]
REGULARISED = {
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
    "input_dropout": 0.1,
    "feature_dropout": 0.1,
    "layer_drop": 0.2,
}


def make_batch(lengths=(900, 700, 800), total=None, seed=0, first_id=0, config=SMALL):
    """Noise; lengths in samples are those for SMALL, and longer for a configuration of longer frames."""
    lengths = tuple(lengthened(length, config) for length in lengths)
    total = lengthened(total, config) if total else max(lengths)
    waveform = np.zeros((len(lengths), total), np.float32)
    for row, length in enumerate(lengths):
        rng = np.random.default_rng((seed, row))
        waveform[row, :length] = 0.3 * rng.standard_normal(length)
    ids = np.arange(first_id, first_id + len(lengths), dtype=np.uint32)
    return Batch(jnp.asarray(waveform), jnp.array(lengths, jnp.int32), jnp.asarray(ids))


@functools.cache
def initial(architecture=SMALL):
    """Parameters of a variant; settings that change no shape share them."""
    return jax.jit(pretraining_objective(architecture).init)(jax.random.key(0))[0]


def architecture_of(config):
    """The configuration whose parameters a changed one can take."""
    alike = ("objective", "front_end", "pre_norm")
    return next(
        variant
        for variant in (*VARIANTS.values(), *OBJECTIVES.values())
        if all(getattr(variant, name) == getattr(config, name) for name in alike)
    )


def run(config, batch, step=0):
    parameters = initial(architecture_of(config))
    return gradient(config)(parameters, {}, batch, jax.random.key(7), jnp.int32(step))


@functools.cache
def gradient(config):
    """Tests of the same configuration share one program."""
    return jax.jit(pretraining_objective(config).value_and_grad)


@functools.cache
def training_sums(config):
    """The sums alone: the backward pass is not compiled."""
    value_and_grad = pretraining_objective(config).value_and_grad
    return jax.jit(lambda *given: value_and_grad(*given)[2])


def run_sums(config, batch, step=0):
    parameters = initial(architecture_of(config))
    return training_sums(config)(parameters, {}, batch, jax.random.key(7), jnp.int32(step))


def assert_close(ours, theirs, share=1e-5):
    difference = optax.tree.norm(jax.tree.map(jnp.subtract, ours, theirs))
    assert difference <= share * optax.tree.norm(theirs)


@pytest.mark.parametrize(
    "name", ["group-norm", pytest.param("layer-norm", marks=pytest.mark.slow), "best-rq", "wav2vec2-log-mel"]
)
def test_gradients_are_finite_and_reach_every_parameter(name):
    config = (VARIANTS | OBJECTIVES)[name]
    gradients, _, _ = run(config, make_batch(config=config))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(leaf).all(), path
        if "k_proj" not in str(path):  # a bias on keys shifts all scores alike
            assert jnp.abs(leaf).max() > 0, path


@pytest.mark.parametrize("objective", BOTH)
def test_duplicating_the_batch_changes_neither_loss_nor_gradient(objective):
    # The diversity term and the penalty must not depend on how many frames are masked.
    config = OBJECTIVES[objective].replace(diversity_weight=3.0, feature_penalty_weight=2.0)
    batch = make_batch(config=config)
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), batch)
    once_gradients, _, once = run(config, batch)
    twice_gradients, _, double = run(config, twice)
    np.testing.assert_allclose(
        once["loss"].total / once["loss"].weight, double["loss"].total / double["loss"].weight, rtol=1e-5
    )
    np.testing.assert_allclose(2 * once["loss"].weight, double["loss"].weight)
    assert_close(twice_gradients, once_gradients)


def test_the_diversity_term_is_weighted_per_masked_frame():
    low, high = (run_sums(SMALL.replace(diversity_weight=w), make_batch()) for w in (0.0, 2.0))
    frames = low["loss"].weight
    added = (high["loss"].total - low["loss"].total) / frames
    np.testing.assert_allclose(added, 2.0 * high["diversity"].total / frames, rtol=1e-4)


@pytest.mark.parametrize("objective", BOTH)
def test_padded_rows_change_nothing(objective):
    config = OBJECTIVES[objective]
    batch = make_batch(config=config)
    padded = Batch(
        jnp.concatenate([batch.waveform, jnp.zeros((2, batch.waveform.shape[1]))]),
        jnp.concatenate([batch.num_samples, jnp.zeros(2, jnp.int32)]),
        jnp.concatenate([batch.utterance_id, jnp.zeros(2, jnp.uint32)]),
    )
    ours, theirs = run(config, padded), run(config, batch)
    assert_close(ours[0], theirs[0])
    chex.assert_trees_all_close(ours[2], theirs[2], rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["group-norm", pytest.param("layer-norm", marks=pytest.mark.slow), "best-rq"]
)
def test_a_longer_padded_length_changes_nothing(name):
    # With masked normalisation; all draws are per utterance and frame.
    config = (VARIANTS | OBJECTIVES)[name]
    config = config.replace(masked_group_norm=True, normalise_waveform=True, **REGULARISED)
    lengths = (900, 700, 800)
    longer, batch = (make_batch(lengths, total, config=config) for total in (1200, None))
    ours, theirs = run(config, longer), run(config, batch)
    assert_close(ours[0], theirs[0])
    chex.assert_trees_all_close(ours[2], theirs[2], rtol=1e-4)


@pytest.mark.slow
def test_unmasked_group_norm_sees_padding():
    # As transformers' does: the reason for the masked mode.
    ours, theirs = (run_sums(SMALL, make_batch((700,), total)) for total in (900, 700))
    assert abs(float(ours["contrastive"].total - theirs["contrastive"].total)) > 1e-4


@pytest.mark.parametrize("objective", BOTH)
def test_what_lies_beyond_the_length_is_never_heard(objective):
    config = OBJECTIVES[objective].replace(masked_group_norm=True)
    batch = make_batch((900, 500), config=config)
    noisy = batch._replace(waveform=batch.waveform.at[1, lengthened(520, config) :].set(1.0))
    # The frames of row 1 that reach past sample 500 are padding; noise starts after the last valid one.
    ours, theirs = run(config, noisy), run(config, batch)
    assert_close(ours[0], theirs[0])


@pytest.mark.parametrize("objective", BOTH)
def test_row_order_changes_nothing(objective):
    config = OBJECTIVES[objective].replace(**(REGULARISED | {"layer_drop": 0.0}))
    batch = make_batch(config=config)
    turned = jax.tree.map(lambda leaf: leaf[::-1], batch)
    assert_close(run(config, turned)[0], run(config, batch)[0])


@pytest.mark.parametrize("objective", BOTH)
def test_a_batch_without_masked_frames_has_no_gradient(objective):
    config = OBJECTIVES[objective]
    gradients, _, sums = run(config, make_batch((0, 0), total=900, config=config))
    assert optax.tree.norm(gradients) == 0.0
    assert sums["loss"] == (0.0, 0.0)


@pytest.mark.parametrize(
    ("objective", "masked_frames"),
    [
        pytest.param("wav2vec2", 0, marks=pytest.mark.slow),
        ("wav2vec2", 1),
        pytest.param("wav2vec2", 2, marks=pytest.mark.slow),
        pytest.param("best-rq", 1, marks=pytest.mark.slow),
    ],
)
def test_few_masked_frames_are_finite(objective, masked_frames):
    config = OBJECTIVES[objective].replace(mask_span=1, mask_probability=0.0, mask_min_spans=masked_frames)
    gradients, _, sums = run(config, make_batch((900,), config=config))
    assert sums["loss"].weight == masked_frames
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_encoder_gradient_is_scaled_and_the_mask_embedding_is_not():
    plain = run(SMALL.replace(encoder_gradient_scale=1.0), make_batch())[0]
    scaled = run(SMALL.replace(encoder_gradient_scale=0.1), make_batch())[0]
    assert_close(scaled["feature_encoder"], jax.tree.map(lambda g: 0.1 * g, plain["feature_encoder"]), 1e-4)
    assert_close(scaled["mask_embedding"], plain["mask_embedding"])


@pytest.mark.parametrize(
    ("form", "unroll"),
    [
        ("product", 2),
        pytest.param("product", 1, marks=pytest.mark.slow),
        pytest.param("lax", 1, marks=pytest.mark.slow),
        pytest.param("lax", 2, marks=pytest.mark.slow),
    ],
)
def test_how_it_is_computed_changes_nothing(form, unroll):
    ours = run(SMALL.replace(convolution_form=form, scan_unroll=unroll), make_batch())
    assert_close(ours[0], run(SMALL, make_batch())[0])


@pytest.mark.parametrize("objective", BOTH)
def test_bfloat16_products_stay_close_and_keep_parameters_fp32(objective):
    config = OBJECTIVES[objective]
    batch = make_batch(config=config)
    gradients, _, sums = run(config.replace(compute_dtype="bfloat16"), batch)
    _, _, reference = run(config, batch)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradients))
    np.testing.assert_allclose(sums["loss"].total, reference["loss"].total, rtol=0.05)
    if objective == "best-rq":  # the codes are taken in fp32
        np.testing.assert_array_equal(sums["code_counts"].total, reference["code_counts"].total)


def test_masks_are_reproducible_and_follow_key_and_utterance():
    batch = make_batch()
    first, again = (draw(SMALL, batch, jax.random.key(1)) for _ in range(2))
    chex.assert_trees_all_equal(first, again)
    assert (first.mask != draw(SMALL, batch, jax.random.key(2)).mask).any()
    other_utterances = batch._replace(utterance_id=batch.utterance_id + jnp.uint32(100))
    assert (first.mask != draw(SMALL, other_utterances, jax.random.key(1)).mask).any()


def test_dropout_depends_on_the_key():
    config = SMALL.replace(**REGULARISED)
    sums = training_sums(config)
    losses = [
        float(sums(initial(), {}, make_batch(), jax.random.key(k), jnp.int32(0))["loss"].total)
        for k in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("name", [name for name in REGULARISED if name != "layer_drop"])
def test_each_dropout_alone_has_an_effect(name):
    with_it = run_sums(SMALL.replace(**{name: 0.3}), make_batch())["loss"].total
    without = run_sums(SMALL, make_batch())["loss"].total
    assert abs(float(with_it - without)) > 1e-4


def test_dropped_layers_learn_nothing_and_the_others_go_on():
    gradients = run(SMALL.replace(layer_drop=1.0), make_batch())[0]
    assert optax.tree.norm(gradients["context_network"]["layers"]) == 0.0
    assert optax.tree.norm(gradients["context_network"]["positional"]) > 0.0


def test_the_gumbel_temperature_follows_the_step():
    config = SMALL.replace(gumbel_temperature_decay=0.5)
    early, late = (run(config, make_batch(), step=step)[0]["quantizer"] for step in (0, 2))
    difference = optax.tree.norm(jax.tree.map(jnp.subtract, early, late))
    assert difference > 1e-2 * optax.tree.norm(early)


def test_the_waveform_is_normalised_over_its_valid_samples_where_asked():
    batch = make_batch((900, 700))
    loud = batch._replace(waveform=jnp.where(batch.waveform != 0, 5.0 * batch.waveform + 0.2, 0.0))
    config = VARIANTS["layer-norm"].replace(normalise_waveform=True)
    ours, theirs = run(config, loud)[0], run(config, batch)[0]
    assert_close(ours, theirs, 1e-4)
    waveform = np.asarray(normalise_waveform(loud.waveform, loud.num_samples))
    for row, length in enumerate((900, 700)):
        expected = np.asarray(loud.waveform)[row, :length].astype(np.float64)
        expected = (expected - expected.mean()) / np.sqrt(expected.var() + 1e-7)
        np.testing.assert_allclose(waveform[row, :length], expected, atol=1e-5)
        assert not waveform[row, length:].any()


def equations(jaxpr):
    """All equations of a jaxpr, nested ones included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else [value]:
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from equations(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize(
    ("architecture", "form"),
    [(SMALL, "product"), (SMALL, "lax"), (SMALL_BEST_RQ, "lax")],
    ids=["product", "lax", "best-rq"],
)
def test_under_bfloat16_only_products_see_bfloat16(architecture, form):
    objective = pretraining_objective(architecture.replace(compute_dtype="bfloat16", convolution_form=form))
    batch = make_batch(config=architecture)
    program = jax.make_jaxpr(objective.value_and_grad)(
        initial(architecture), {}, batch, jax.random.key(0), jnp.int32(0)
    )
    of_bf16 = {
        equation.primitive.name
        for equation in equations(program.jaxpr)
        if any(getattr(getattr(v, "aval", None), "dtype", None) == jnp.bfloat16 for v in equation.invars)
    }
    moving = {"convert_element_type", "transpose", "reshape", "rev", "squeeze", "broadcast_in_dim", "slice"}
    calls = {"custom_vjp_call", "custom_vjp_call_jaxpr", "pjit", "jit", "scan", "closed_call"}
    assert of_bf16 & {"dot_general", "conv_general_dilated"}
    assert of_bf16 <= {"dot_general", "conv_general_dilated"} | moving | calls


@pytest.mark.parametrize("objective", BOTH)
def test_evaluation_has_no_noise_and_a_control(objective):
    architecture = OBJECTIVES[objective]
    objective = pretraining_objective(architecture.replace(**REGULARISED))
    parameters, state, evaluate = initial(architecture), {}, jax.jit(objective.evaluate)
    batch = make_batch(config=architecture)
    results = [objective.summarise(evaluate(parameters, state, batch, jax.random.key(3))) for _ in range(2)]
    assert results[0] == results[1]
    assert {"chance_accuracy", "shuffled_accuracy", "accuracy_standard_error"} <= results[0].keys()
    assert 0 < results[0]["chance_accuracy"] <= 1


def test_shuffling_permutes_masked_frames_only():
    context = jnp.arange(24, dtype=jnp.float32).reshape(1, 12, 2)
    mask = jnp.array([[False, True] * 6])
    out = np.asarray(shuffle_masked(context, mask, jax.random.split(jax.random.key(0), 1)))[0]
    np.testing.assert_array_equal(out[::2], np.asarray(context)[0, ::2])
    masked = np.asarray(context)[0, 1::2]
    assert (out[1::2] != masked).any()
    np.testing.assert_array_equal(np.sort(out[1::2], axis=0), masked)


@pytest.mark.parametrize("objective", BOTH)
def test_sums_add_up_over_batches(objective):
    config = OBJECTIVES[objective]
    objective = pretraining_objective(config)
    parameters, state, evaluate = initial(config), {}, jax.jit(objective.evaluate)
    batch, key = make_batch((900, 700, 800, 900), config=config), jax.random.key(3)
    halves = [jax.tree.map(lambda leaf, s=s: leaf[s], batch) for s in (slice(0, 2), slice(2, 4))]
    parts = [evaluate(parameters, state, half, key) for half in halves]
    whole = objective.summarise(evaluate(parameters, state, batch, key))
    added = objective.summarise(jax.tree.map(jnp.add, *parts))
    names = {
        "loss",
        "contrastive",
        "accuracy",
        "code_perplexity",
        "chance_accuracy",
        "accuracy_standard_error",
    }
    # wav2vec 2.0's loss has a diversity term, which is none of a sum; BEST-RQ has no contrastive loss.
    for name in names - {"contrastive" if config.objective == "best-rq" else "loss"}:
        np.testing.assert_allclose(added[name], whole[name], rtol=1e-4)


def test_gumbel_temperature_decays_to_its_end():
    config = SMALL.replace(gumbel_temperature_decay=0.5)
    values = [float(gumbel_temperature(config, jnp.int32(step))) for step in (0, 1, 50)]
    np.testing.assert_allclose(values, [2.0, 1.0, 0.5])


def test_gumbel_noise_is_standard_and_finite():
    noise = gumbel_noise(jax.random.split(jax.random.key(0), 4), 50, 2, 100)
    assert jnp.isfinite(noise).all()
    np.testing.assert_allclose(noise.mean(), np.euler_gamma, atol=0.03)


def test_initial_values_follow_the_reference():
    config = SMALL.replace(hidden_dim=64, conv_channels=(64, 64, 64), codebook_entries=100)
    parameters = bind_model(config)[0](jax.random.key(0))
    for leaf in (parameters["quantizer"]["codevectors"], parameters["mask_embedding"]):
        assert 0 <= leaf.min() < leaf.max() <= 1
        assert leaf.max() > 0.9
    np.testing.assert_allclose(parameters["quantizer"]["weight_proj"]["kernel"].std(), 1.0, rtol=0.05)
    conv = parameters["feature_encoder"]["conv_layers_1"]["kernel"]
    np.testing.assert_allclose(conv.std(), (2 / (64 * 3)) ** 0.5, rtol=0.05)
    positional = parameters["context_network"]["positional"]["direction"]
    np.testing.assert_allclose(positional.std(), (4 / (8 * 64)) ** 0.5, rtol=0.05)


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("wav2vec2", ("feature_encoder/conv_layers_0", "quantizer/weight_proj")),
        ("best-rq", ("feature_encoder/log_mel", "quantizer", "prediction")),
    ],
)
def test_operations_carry_module_paths(name, paths):
    config = OBJECTIVES[name]
    objective = pretraining_objective(config)
    lowered = jax.jit(objective.value_and_grad).lower(
        initial(config), {}, make_batch(config=config), jax.random.key(0), jnp.int32(0)
    )
    text = lowered.compile().as_text()
    for path in (*paths, r"context_network/\S*layers/attention/q_proj"):
        assert re.search(path, text), path


def test_the_diversity_weight_may_rise_to_its_value():
    config = SMALL.replace(diversity_weight=0.4, diversity_warmup_updates=10)
    values = [float(diversity_weight(config, jnp.int32(step))) for step in (0, 4, 9, 500)]
    np.testing.assert_allclose(values, [0.004, 0.1, 0.4, 0.4], rtol=1e-6)
    assert float(diversity_weight(SMALL, jnp.int32(0))) == pytest.approx(SMALL.diversity_weight)
    # The weight enters the loss per masked frame.
    early, late = (run_sums(config, make_batch(), step=step) for step in (0, 9))
    np.testing.assert_allclose(
        late["loss"].total - early["loss"].total, 0.396 * late["diversity"].total, rtol=1e-3
    )
