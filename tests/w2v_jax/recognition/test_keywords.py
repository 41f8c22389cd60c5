"""Keyword spotting: pooling, loss and head against NumPy; what padding and a frozen encoder change."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.configs import SMALL
from w2v_jax.batch import LabelledBatch
from w2v_jax.recognition.frames import frames_of
from w2v_jax.recognition.keywords import (
    KeywordHeadConfig,
    KeywordSpotterConfig,
    keyword_losses,
    keyword_spotter,
    pooled,
    summarise,
)

MODEL = SMALL.replace(
    conv_channels=(8, 12), conv_kernels=(10, 4), conv_strides=(5, 4), num_layers=2, positional_groups=1,
    dropout=0.2, input_dropout=0.1, masked_group_norm=True,
)  # fmt: skip
LENGTHS, CLASSES = (900, 700, 800), (2, 0, 4)


def settings(frozen="none", label_smoothing=0.1, **head):
    return KeywordSpotterConfig(
        model=MODEL,
        head=KeywordHeadConfig(**{"num_classes": 5, **head}),
        frozen=frozen,
        label_smoothing=label_smoothing,
    )


FULL = settings(pooling="attentive", segments=3, num_blocks=1, width=7, projection=6, weighted_layers=True)


def make_batch(samples=900, rows=3):
    waveform, num_samples = np.zeros((rows, samples), np.float32), np.zeros(rows, np.int32)
    labels, ids = np.zeros((rows, 1), np.int32), np.zeros(rows, np.uint32)
    for row, (length, held) in enumerate(zip(LENGTHS, CLASSES, strict=True)):
        waveform[row, :length] = 0.3 * np.random.default_rng(row).standard_normal(length)
        num_samples[row], labels[row], ids[row] = length, held, row + 5
    counts = (num_samples > 0).astype(np.int32)
    return LabelledBatch(*map(jnp.asarray, (waveform, num_samples, ids, labels, counts)))


@functools.cache
def functions(config):
    made = keyword_spotter(config)
    parameters, state = jax.jit(made.objective.init)(jax.random.key(0))
    # Biases and weights of layers begin at zero, which would hide what they do.
    parameters = jax.tree.map(
        lambda leaf: leaf + 0.1 * np.random.default_rng(leaf.size).standard_normal(leaf.shape).astype("f4"),
        jax.device_get(parameters),
    )
    return jax.jit(made.objective.value_and_grad), jax.jit(made.classify), parameters, state


def norm(tree):
    return float(np.sqrt(sum(np.square(np.asarray(leaf)).sum() for leaf in jax.tree.leaves(tree))))


def by_hand(x, frames, segments, scores):
    """One clip's pooled frames, in loops."""
    out = np.zeros((segments, x.shape[1]))
    for segment in range(segments):
        inside = [t for t in range(frames) if t * segments // frames == segment]
        weights = np.exp([scores[t] for t in inside])
        for t, weight in zip(inside, weights / weights.sum() if inside else [], strict=True):
            out[segment] += weight * x[t]
    return out


@pytest.mark.parametrize("segments", [1, 3])
@pytest.mark.parametrize("attentive", [False, True])
def test_pooling_by_hand(segments, attentive):
    rng = np.random.default_rng(2)
    x, scores = rng.standard_normal((3, 7, 4)).astype("f4"), rng.standard_normal((3, 7)).astype("f4")
    lengths = np.array([7, 4, 2])  # the last one has fewer frames than three segments
    valid = np.arange(7)[None] < lengths[:, None]
    found = pooled(jnp.asarray(x), jnp.asarray(valid), segments, jnp.asarray(scores) if attentive else None)
    for row, frames in enumerate(lengths):
        expected = by_hand(x[row], frames, segments, scores[row] if attentive else np.zeros(7))
        np.testing.assert_allclose(found[row], expected, atol=1e-6)


def test_cross_entropy_by_hand():
    logits = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]], np.float32)
    told = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = np.full((2, 3), 0.3 / 3)
    target[0, 2] += 0.7
    target[1, 0] += 0.7
    found = keyword_losses(jnp.asarray(logits), jnp.array([2, 0]), 0.3)
    np.testing.assert_allclose(found, -(target * told).sum(1), rtol=1e-5)


def linear(x, held):
    return x @ held["kernel"] + held["bias"]


def normed(x, held):
    """Under the running statistics before the first batch."""
    return x / np.sqrt(1 + 1e-5) * held["scale"] + held["bias"]


@pytest.mark.parametrize("config", [settings(), FULL], ids=["plain", "full"])
def test_scores_are_those_of_a_head_written_in_numpy(config):
    _, classify, parameters, state = functions(config)
    batch = make_batch()
    probabilities, sums = classify(parameters, state, batch)
    encode = jax.jit(lambda held: frames_of(config)[1](held, batch.waveform, batch.num_samples, None))
    frames = encode(parameters["encoder"])
    head, rows = parameters["head"], []
    for row, length in enumerate(LENGTHS):
        x, scores = np.asarray(frames.last[row]), np.zeros(frames.last.shape[1])
        if config is FULL:
            shares = np.exp(head["layer_weights"]) / np.exp(head["layer_weights"]).sum()
            x = np.einsum("l,ltd->td", shares, np.stack([np.asarray(layer[row]) for layer in frames.layers]))
            x = normed(x, head["input_norm"])
            x = normed(linear(x, head["blocks_0"]["linear"]), head["blocks_0"]["norm"])
            x = linear(np.where(x > 0, x, 0.01 * x), head["projection"])
            scores = linear(x, head["attention"])[:, 0]
        parts = by_hand(x, MODEL.num_frames(length), config.head.segments, scores)
        rows.append(linear(parts.reshape(-1), head["output"]))
    logits = np.array(rows)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    summary = summarise(jax.device_get(sums))
    right = np.log(expected[np.arange(3), CLASSES])
    assert summary["loss"] == pytest.approx(-right.mean(), rel=1e-4)  # without smoothing
    assert summary["accuracy"] == pytest.approx((expected.argmax(1) == CLASSES).mean())
    assert summary["audio_seconds"] == pytest.approx(sum(LENGTHS) / 16_000)


def test_a_clip_without_a_class_has_no_loss_and_is_wrong():
    _, classify, parameters, state = functions(settings())
    batch = make_batch()
    whole = jax.device_get(classify(parameters, state, batch)[1])
    sums = jax.device_get(classify(parameters, state, batch._replace(num_labels=jnp.array([1, 0, 1])))[1])
    assert (whole["loss"].weight, sums["loss"].weight) == (3, 2)
    assert 0 < sums["loss"].total < whole["loss"].total
    assert (whole["accuracy"].weight, sums["accuracy"].weight) == (3, 3)


def test_padded_rows_and_padded_time_change_nothing():
    # Every kind of dropout is drawn as without the padding.
    value_and_grad, _, parameters, state = functions(FULL)
    found, _, sums = value_and_grad(parameters, state, make_batch(), jax.random.key(7), 0)
    padded_rows = make_batch_padded()
    again, _, padded = value_and_grad(parameters, state, padded_rows, jax.random.key(7), 0)
    difference = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), found, again)
    assert norm(difference) <= 1e-4 * norm(found)
    assert summarise(jax.device_get(padded)) == pytest.approx(summarise(jax.device_get(sums)), rel=1e-5)


def make_batch_padded():
    batch = make_batch(samples=1240)
    return LabelledBatch(*(np.pad(np.asarray(x), ((0, 2), *((0, 0),) * (x.ndim - 1))) for x in batch))


def test_every_part_of_a_full_head_gets_gradients():
    value_and_grad, _, parameters, state = functions(FULL)
    gradients, new, _ = value_and_grad(parameters, state, make_batch(), jax.random.key(7), 0)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert norm(new["input_norm"]["mean"]) > 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        # Nothing is masked. Softmax and norms do not see a constant that is added to all of their inputs.
        unseen = (
            "['k_proj']['bias']",
            "['attention']['bias']",
            "['linear']['bias']",
            "['input_norm']['bias']",
        )
        if "mask_embedding" in name or name.endswith(unseen):
            continue
        assert norm(leaf) > 1e-7, name


def test_a_frozen_encoder_gets_no_gradient_and_no_dropout_by_any_layer():
    config = dataclasses.replace(
        settings(frozen="encoder", weighted_layers=True, dropout=0.0), label_smoothing=0.0
    )
    value_and_grad, classify, parameters, state = functions(config)
    gradients, _, sums = value_and_grad(parameters, state, make_batch(), jax.random.key(7), 0)
    assert norm(gradients["encoder"]) == 0
    assert norm(gradients["head"]) > 0
    evaluated = summarise(jax.device_get(classify(parameters, state, make_batch())[1]))
    assert summarise(jax.device_get(sums))["loss"] == pytest.approx(evaluated["loss"], rel=1e-6)


def test_log_mel_frames_and_their_lack_of_layers():
    config = KeywordSpotterConfig(
        model=MODEL, head=KeywordHeadConfig(num_classes=5, segments=2), features="log-mel"
    )
    made = keyword_spotter(config)
    parameters, _ = made.objective.init(jax.random.key(0))
    assert parameters["encoder"] == {}
    assert made.scores(parameters, {}, jnp.ones((1, 1600)), jnp.array([1600])).shape == (1, 5)
    with pytest.raises(ValueError, match="no layers"):
        keyword_spotter(
            dataclasses.replace(config, head=KeywordHeadConfig(num_classes=5, weighted_layers=True))
        )


def test_a_configuration_through_json():
    import json

    assert KeywordSpotterConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(FULL)))) == FULL
