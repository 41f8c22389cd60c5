"""CTC against a slow forward algorithm and all alignments, then the recognizer around it."""

import dataclasses
import functools
import itertools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.configs import SMALL, VARIANTS
from w2v_jax.batch import LabelledBatch
from w2v_jax.model import log_mel
from w2v_jax.recognition.ctc import (
    BLANK,
    RecognizerConfig,
    collapse,
    ctc_losses,
    decode_batch,
    needed_frames,
    recognizer,
)
from w2v_jax.recognition.heads import HeadConfig, initial_statistics
from w2v_jax.recognition.training import make_statistics_update

TOKENS = 5
ROWS, TIME, LABELS = 12, 9, 5


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def reference_loss(logits, labels):
    """Graves et al. 2006, section 4.1, in float64: over blanks and labels in turn, frame by frame."""
    log_probabilities = log_softmax(np.asarray(logits, np.float64))
    states = [BLANK]
    for label in labels:
        states += [int(label), BLANK]
    alpha = np.full(len(states), -np.inf)
    alpha[0] = 0.0  # before the first frame: at the start
    for time, frame in enumerate(log_probabilities):
        before, alpha = alpha, np.full(len(states), -np.inf)
        for place, token in enumerate(states):
            ways = [before[place]] if time else [before[0] if place < 2 else -np.inf]
            if time and place:
                ways.append(before[place - 1])
            if time and place > 1 and token not in (BLANK, states[place - 2]):
                ways.append(before[place - 2])
            alpha[place] = np.logaddexp.reduce(ways) + frame[token]
    return -np.logaddexp.reduce(alpha[-2:])


def merged(path):
    """What an alignment spells, letter by letter."""
    spelled, before = [], None
    for token in path:
        if token != before and token != BLANK:
            spelled.append(int(token))
        before = token
    return spelled


def loss_over_alignments(logits, labels):
    """All paths of tokens that spell the labels, one by one."""
    log_probabilities = log_softmax(np.asarray(logits, np.float64))
    frames, tokens = log_probabilities.shape
    scores = [
        sum(log_probabilities[time, token] for time, token in enumerate(path))
        for path in itertools.product(range(tokens), repeat=frames)
        if merged(path) == list(labels)
    ]
    return -np.logaddexp.reduce(scores)


def finite_differences(function, x, step=1e-5):
    x = np.asarray(x, np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        there, here = x.copy(), x.copy()
        there[index] += step
        here[index] -= step
        gradient[index] = (function(there) - function(here)) / (2 * step)
    return gradient


@functools.cache
def compiled():
    def total(logits, num_frames, labels, num_labels):
        losses, feasible = ctc_losses(logits, num_frames, labels, num_labels)
        return losses.sum(), (losses, feasible)

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def run(logits, num_frames, labels, num_labels):
    (_, (losses, feasible)), gradients = compiled()(
        jnp.asarray(logits, jnp.float32),
        jnp.asarray(num_frames, jnp.int32),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(num_labels, jnp.int32),
    )
    return np.asarray(losses), np.asarray(feasible), np.asarray(gradients)


def random_case(seed):
    """Few tokens, so that repeats abound; every length from none to all of them."""
    rng = np.random.default_rng(seed)
    logits = 3.0 * rng.standard_normal((ROWS, TIME, TOKENS))
    labels = rng.integers(1, 3, (ROWS, LABELS))
    num_labels = rng.integers(0, LABELS + 1, ROWS)
    num_frames = rng.integers(0, TIME + 1, ROWS)
    num_frames[:2], num_labels[0], num_labels[1] = TIME, LABELS, 0
    return logits, num_frames, labels, num_labels


@pytest.mark.parametrize("seed", range(6))
def test_losses_and_gradients_equal_a_slow_reference(seed):
    logits, num_frames, labels, num_labels = random_case(seed)
    losses, feasible, gradients = run(logits, num_frames, labels, num_labels)
    for row in range(ROWS):
        frames, held = num_frames[row], labels[row, : num_labels[row]]
        needed = len(held) + int((held[1:] == held[:-1]).sum())
        assert feasible[row] == (needed <= frames and frames > 0)
        if not feasible[row]:
            assert losses[row] == 0.0
            assert not gradients[row].any()
            continue

        def loss(x, held=held):
            return reference_loss(x, held)

        np.testing.assert_allclose(losses[row], loss(logits[row, :frames]), rtol=2e-5, atol=2e-5)
        expected = finite_differences(loss, logits[row, :frames])
        np.testing.assert_allclose(gradients[row, :frames], expected, atol=5e-5)
        assert not gradients[row, frames:].any()


@pytest.mark.parametrize("labels", [(1,), (1, 2), (2, 2), (1, 2, 1), ()])
def test_losses_and_gradients_count_every_alignment(labels):
    logits = np.random.default_rng(len(labels)).standard_normal((1, 4, 3))
    padded = np.zeros((1, 3), int)
    padded[0, : len(labels)] = labels
    losses, _, gradients = run(logits, [4], padded, [len(labels)])
    np.testing.assert_allclose(losses[0], loss_over_alignments(logits[0], labels), rtol=1e-5)
    expected = finite_differences(lambda x: loss_over_alignments(x, labels), logits[0])
    np.testing.assert_allclose(gradients[0], expected, atol=2e-5)


def test_a_case_by_hand():
    # Two frames, tokens blank, a, b with probabilities (.5, .3, .2) and (.4, .1, .5).
    probabilities = np.array([[0.5, 0.3, 0.2], [0.4, 0.1, 0.5]])
    cases = {
        (): 0.5 * 0.4,
        (1,): 0.3 * 0.1 + 0.3 * 0.4 + 0.5 * 0.1,  # aa, a-, -a
        (2,): 0.2 * 0.5 + 0.2 * 0.4 + 0.5 * 0.5,
        (1, 2): 0.3 * 0.5,
        (2, 1): 0.2 * 0.1,
    }
    labels = np.array([[*held, 0, 0][:2] for held in cases])
    logits = np.broadcast_to(np.log(probabilities), (len(cases), 2, 3))
    losses, feasible, _ = run(logits, [2] * len(cases), labels, [len(held) for held in cases])
    assert feasible.all()
    np.testing.assert_allclose(np.exp(-losses), list(cases.values()), rtol=1e-5)
    assert sum(cases.values()) == pytest.approx(1.0)  # no other text fits into two frames


def test_rows_that_cannot_be_written_are_nothing_and_disturb_no_other():
    logits, num_frames, labels, num_labels = random_case(0)
    num_frames[:], num_labels[:] = TIME, 3
    fine = run(logits, num_frames, labels, num_labels)
    labels[1, :3], num_frames[1] = (1, 1, 1), 4  # needs five
    num_frames[3] = 2  # fewer frames than labels
    num_frames[5] = 0
    num_frames[7] = num_labels[7] = 0
    losses, feasible, gradients = run(logits, num_frames, labels, num_labels)
    bad, others = [1, 3, 5, 7], [0, 2, 4, 6, 8, 9, 10, 11]
    assert not feasible[bad].any()
    assert (losses[bad] == 0).all()
    assert (gradients[bad] == 0).all()
    assert feasible[others].all()
    np.testing.assert_array_equal(losses[others], fine[0][others])
    np.testing.assert_allclose(gradients[others], fine[2][others], atol=1e-6)
    # One more frame, and the first of them fits in exactly one way.
    num_frames[1] = 5
    losses, feasible, _ = run(logits, num_frames, labels, num_labels)
    log_probabilities = log_softmax(logits[1])
    assert feasible[1]
    expected = -sum(log_probabilities[time, token] for time, token in enumerate((1, 0, 1, 0, 1)))
    np.testing.assert_allclose(losses[1], expected, rtol=1e-5)


def test_what_lies_beyond_a_length_changes_nothing():
    logits, num_frames, labels, num_labels = random_case(1)
    losses, _, gradients = run(logits, num_frames, labels, num_labels)
    rng = np.random.default_rng(7)
    beyond = np.arange(TIME)[None] >= num_frames[:, None]
    logits[beyond] = rng.standard_normal((beyond.sum(), TOKENS))
    unsaid = np.arange(LABELS)[None] >= num_labels[:, None]
    labels[unsaid] = rng.integers(0, TOKENS, unsaid.sum())
    again, _, gradients_again = run(logits, num_frames, labels, num_labels)
    np.testing.assert_array_equal(again, losses)
    np.testing.assert_allclose(gradients_again, gradients, atol=1e-6)


def test_needed_frames_counts_repeats_within_the_transcript_alone():
    labels = jnp.array([[1, 1, 2, 2], [1, 1, 2, 2], [3, 0, 0, 0], [0, 0, 0, 0], [1, 2, 1, 2]])
    found = needed_frames(labels, jnp.array([4, 3, 1, 0, 4]))
    assert found.tolist() == [6, 4, 1, 0, 4]


def slow_collapse(best, num_frames):
    return merged(list(best)[:num_frames])


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 30))
def test_greedy_decoding_equals_a_slow_reference(best, num_frames):
    num_frames = min(num_frames, len(best))
    assert collapse(np.array(best, np.int32), num_frames) == slow_collapse(best, num_frames)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=6, max_size=6), st.integers(0, 6)), min_size=1)
)
def test_batches_are_decoded_row_by_row(rows):
    best, frames = np.array([row for row, _ in rows], np.int32), [count for _, count in rows]
    assert decode_batch(best, frames) == [slow_collapse(row, count) for row, count in rows]


@pytest.mark.parametrize(
    ("best", "expected"),
    [([], []), ([0, 0, 0], []), ([1, 1, 1], [1]), ([1, 0, 1], [1, 1]), ([0, 2, 2, 0, 0, 2, 1], [2, 2, 1])],
)
def test_greedy_decoding_by_hand(best, expected):
    assert collapse(np.array(best, np.int32), len(best)) == expected


# The recognizer: an encoder of 20 samples a frame, so 900 samples are 44 frames.

MODEL = SMALL.replace(
    conv_channels=(8, 12), conv_kernels=(10, 4), conv_strides=(5, 4), num_layers=1, positional_groups=1
)
NOISY = MODEL.replace(dropout=0.2, input_dropout=0.1)
LENGTHS = (900, 700, 800)
TRANSCRIPTS = ((1, 2, 2, 3), (4,), (3, 1, 5, 5, 5, 2))


def settings(model=NOISY, num_blocks=2, **changes):
    head = HeadConfig(num_tokens=6, num_blocks=num_blocks, width=8)
    return RecognizerConfig(model=model.replace(masked_group_norm=True), head=head, **changes)


def make_batch(lengths=LENGTHS, transcripts=TRANSCRIPTS, *, samples=900, rows=3, labels=6, scale=1):
    waveform = np.zeros((rows, samples * scale), np.float32)
    num_samples, num_labels = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
    held, ids = np.zeros((rows, labels), np.int32), np.zeros(rows, np.uint32)
    for row, (length, transcript) in enumerate(zip(lengths, transcripts, strict=True)):
        rng = np.random.default_rng((3, row))
        waveform[row, : length * scale] = 0.3 * rng.standard_normal(length * scale)
        num_samples[row], num_labels[row] = length * scale, len(transcript)
        held[row, : len(transcript)] = transcript
        ids[row] = row + 5
    return LabelledBatch(*map(jnp.asarray, (waveform, num_samples, ids, held, num_labels)))


@functools.cache
def functions(config):
    """(value_and_grad, recognise, parameters, state), compiled."""
    made = recognizer(config)
    parameters, state = jax.jit(made.objective.init)(jax.random.key(0))
    return jax.jit(made.objective.value_and_grad), jax.jit(made.recognise), parameters, state


def train(config, batch, parameters=None, key=7):
    value_and_grad, _, own, state = functions(config)
    return value_and_grad(own if parameters is None else parameters, state, batch, jax.random.key(key), 0)


def norm(tree):
    """In NumPy: operations on leaves of many shapes would each be compiled."""
    return float(np.sqrt(sum(np.square(np.asarray(leaf)).sum() for leaf in jax.tree.leaves(tree))))


def assert_close(ours, theirs, share=1e-5):
    assert norm(jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), ours, theirs)) <= share * norm(
        theirs
    )


def test_padded_rows_and_padded_time_change_nothing():
    # Loss, gradients and running statistics, with every kind of dropout drawn as without the padding.
    config = settings()
    gradients, state, sums = train(config, make_batch())
    padded = train(config, make_batch(samples=1240, rows=5, labels=9))
    assert float(sums["infeasible"].total) == 0.0
    assert float(sums["infeasible"].weight) == float(padded[2]["infeasible"].weight) == 3.0
    assert norm(gradients["encoder"]) > 0
    assert_close(padded[0], gradients, 1e-4)
    assert_close(padded[1], state)
    chex.assert_trees_all_close(padded[2], sums, rtol=1e-5)


def test_a_batch_of_padding_alone_is_nothing():
    config = settings()
    gradients, state, sums = train(config, make_batch((), ()))
    assert norm(gradients) == 0.0
    chex.assert_trees_all_equal(state, functions(config)[3])
    assert sums["loss"] == (0.0, 0.0)
    assert sums["infeasible"] == (0.0, 0.0)


def test_infeasible_rows_are_counted_and_left_out_of_the_loss():
    config = settings()
    _, recognise, parameters, state = functions(config)
    fine = recognise(parameters, state, make_batch())
    # 100 samples are four frames: too few for (5, 5, 5).
    cut = recognise(parameters, state, make_batch((900, 700, 100), (*TRANSCRIPTS[:2], (5, 5, 5))))
    two = recognise(parameters, state, make_batch((900, 700), TRANSCRIPTS[:2]))
    assert fine[2]["infeasible"] == (0.0, 3.0)
    assert cut[2]["infeasible"] == (1.0, 3.0)
    assert two[2]["infeasible"] == (0.0, 2.0)
    assert float(cut[2]["loss"].weight) == 5.0
    np.testing.assert_allclose(cut[2]["loss"].total, two[2]["loss"].total, rtol=1e-6)
    summary = recognizer(config).objective.summarise(cut[2])
    assert summary["infeasible"] == 1.0
    assert summary["loss"] == pytest.approx(float(two[2]["loss"].total) / 5.0)
    assert summary["audio_seconds"] == pytest.approx(1700 / 16_000)


def test_an_empty_transcript_costs_what_its_blanks_cost():
    config = settings()
    _, recognise, parameters, state = functions(config)
    batch = make_batch((900, 700, 800), ((), (1,), (2,)))
    logits, num_frames = jax.jit(recognizer(config).scores)(
        parameters, state, batch.waveform, batch.num_samples
    )
    losses, feasible = ctc_losses(logits, num_frames, batch.labels, batch.num_labels)
    frames = int(num_frames[0])
    assert frames == config.model.num_frames(900)
    assert bool(feasible[0])
    expected = -log_softmax(np.asarray(logits[0, :frames], np.float64))[:, BLANK].sum()
    np.testing.assert_allclose(losses[0], expected, rtol=1e-5)
    sums = recognise(parameters, state, batch)[2]
    # It has no labels, but its loss counts.
    np.testing.assert_allclose(sums["loss"].total, losses.sum(), rtol=1e-5)
    assert float(sums["loss"].weight) == 2.0


def test_gradients_are_those_of_the_mean_loss_per_label():
    config = settings()
    parameters, batch = functions(config)[2], make_batch()
    gradient = train(config, batch)[0]["head"]["output"]["bias"][2]
    moved, ends = jax.tree.map(lambda leaf: leaf, parameters), []
    for sign in (1.0, -1.0):
        bias = parameters["head"]["output"]["bias"].at[2].add(sign * 0.05)
        moved["head"]["output"] = {**parameters["head"]["output"], "bias": bias}
        loss = train(config, batch, moved)[2]["loss"]
        assert float(loss.weight) == 11.0
        ends.append(float(loss.total) / 11)
    np.testing.assert_allclose(gradient, (ends[0] - ends[1]) / 0.1, rtol=0.02)


def test_the_pretraining_scale_of_encoder_gradients_is_off():
    scaled, plain = (
        train(settings(NOISY.replace(encoder_gradient_scale=scale)), make_batch())[0] for scale in (0.1, 1.0)
    )
    chex.assert_trees_all_equal(scaled["encoder"], plain["encoder"])


def test_what_is_frozen_has_no_gradient_and_the_rest_has_one():
    batch = make_batch()
    for frozen in ("none", "feature-encoder", "encoder"):
        gradients = train(settings(frozen=frozen), batch)[0]
        encoder = gradients["encoder"]
        convolutions, transformer = encoder["feature_encoder"], encoder["context_network"]
        assert (norm(convolutions) > 0) == (frozen == "none")
        assert (norm(transformer) > 0) == (frozen != "encoder")
        assert (norm(encoder["feature_projection"]) > 0) == (frozen != "encoder")
        assert norm(gradients["head"]) > 0
        if frozen == "encoder":
            assert all(not leaf.any() for leaf in jax.tree.leaves(encoder))


def test_a_frozen_encoder_is_used_without_its_dropout():
    noisy, plain = (train(settings(model, frozen="encoder"), make_batch())[2] for model in (NOISY, MODEL))
    assert noisy["loss"] == plain["loss"]
    # The head's own dropout is the same in both; what differs is the encoder's.
    assert float(train(settings(), make_batch())[2]["loss"].total) != float(noisy["loss"].total)


def test_scores_have_no_dropout_and_training_has():
    config = settings()
    _, recognise, parameters, state = functions(config)
    losses = {float(train(config, make_batch(), key=key)[2]["loss"].total) for key in (1, 2)}
    assert len(losses) == 2
    best, num_frames, sums = recognise(parameters, state, make_batch())
    assert best.dtype == jnp.int32
    assert num_frames.tolist() == [config.model.num_frames(length) for length in LENGTHS]
    again = recognise(parameters, state, make_batch())[2]
    assert again["loss"] == sums["loss"]


def test_statistics_are_brought_up_to_parameters_that_have_moved():
    # Without dropout, a row's scores in training and with the right running statistics are the same but for
    # the factor n / (n - 1) of the variances; with those of other parameters they are not.
    config = settings(MODEL)
    config = dataclasses.replace(config, head=dataclasses.replace(config.head, dropout=0.0))
    value_and_grad, recognise, parameters, state = functions(config)
    update = jax.jit(make_statistics_update(recognizer(config).objective))
    batch, key = make_batch(), jax.random.key(7)
    for _ in range(100):
        state = update(parameters, state, batch, key)
    encoder = jax.tree.map(lambda leaf: 1.5 * leaf, parameters["encoder"])
    moved = {**parameters, "encoder": encoder}
    trained = float(value_and_grad(moved, state, batch, key, 0)[2]["loss"].total)

    def off(statistics):
        return abs(float(recognise(moved, statistics, batch)[2]["loss"].total) / trained - 1)

    fresh = state
    for _ in range(100):
        fresh = update(moved, fresh, batch, key)
    assert off(fresh) < 0.01
    assert off(state) > 5 * off(fresh)
    # One pass is what a training step would have done to them.
    chex.assert_trees_all_close(
        update(moved, state, batch, key), value_and_grad(moved, state, batch, key, 0)[1], rtol=1e-5
    )


def test_log_mel_features_need_no_encoder():
    config = settings(features="log-mel", num_blocks=1)
    batch = make_batch(scale=16)  # 14,400 samples: 88 windows of 10 ms
    gradients, state, _ = train(config, batch)
    parameters = functions(config)[2]
    assert parameters["encoder"] == {} == gradients["encoder"]
    assert parameters["head"]["blocks_0"]["linear"]["kernel"].shape == (160, 8)
    chex.assert_trees_all_equal_shapes(state, initial_statistics(160, config.head))
    assert norm(gradients["head"]) > 0
    frames = log_mel.frame_lengths(batch.num_samples).tolist()
    assert frames == [44, 34, 39]
    assert functions(config)[1](parameters, state, batch)[1].tolist() == frames
    padded = train(config, make_batch(scale=16, samples=1100, rows=4))
    assert_close(padded[0], gradients)
    assert_close(padded[1], state)


def test_a_configuration_survives_json():
    config = settings(VARIANTS["layer-norm"], features="log-mel", num_blocks=0)
    held = json.loads(json.dumps(dataclasses.asdict(config)))
    assert RecognizerConfig.from_dict(held) == config
