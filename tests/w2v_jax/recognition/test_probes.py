"""Pooling, linear and trained probes, and few labels, each against a twin or a case with a known answer."""

import jax.numpy as jnp
import numpy as np
import pytest

from w2v_jax.recognition import linear_probe
from w2v_jax.recognition.label_budgets import balanced_budget
from w2v_jax.recognition.linear_probe import Standard, ridge_probe
from w2v_jax.recognition.pooling import segment_means
from w2v_jax.recognition.trained_probes import layer_weights, mlp_probe, weighted_sum_probe


def test_segments_of_whole_frames_are_their_means_and_padding_is_not_heard():
    frames = np.random.default_rng(0).normal(size=(2, 20, 3)).astype(np.float32)
    found = np.asarray(segment_means(jnp.asarray(frames), jnp.array([12, 18]), 6))
    for row, count in enumerate((12, 18)):
        expected = frames[row, :count].reshape(6, count // 6, 3).mean(1).ravel()
        np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-6)


def test_segments_share_a_frame_by_how_much_of_it_they_hold():
    frames = jnp.asarray([[[1.0], [2.0], [4.0], [99.0]]])
    # Two segments of 1.5 frames: the middle frame is half in each.
    np.testing.assert_allclose(segment_means(frames, jnp.array([3]), 2), [[4 / 3, 10 / 3]], rtol=1e-6)
    # More segments than frames: none is empty.
    np.testing.assert_allclose(segment_means(frames, jnp.array([1]), 2), [[1.0, 1.0]], rtol=1e-6)
    np.testing.assert_array_equal(segment_means(frames, jnp.array([0]), 2), [[0.0, 0.0]])


@pytest.mark.parametrize("size", [5, 60], ids=["fewer features than clips", "more features than clips"])
def test_a_linear_probe_solves_the_penalised_least_squares(size, monkeypatch):
    rng = np.random.default_rng(1)
    features, labels = rng.normal(3.0, 2.0, (40, size)), rng.integers(0, 3, 40)
    monkeypatch.setattr(linear_probe, "PENALTIES", (0.3,))
    probe = ridge_probe((features, labels), (features, labels), 3)
    standard = (features - features.mean(0)) / features.std(0)
    targets = np.eye(3)[labels] - np.eye(3)[labels].mean(0)
    # The penalty as rows of data: |Xw - y|^2 + 0.3 x 40 x |w|^2.
    rows = np.concatenate([standard, (0.3 * 40) ** 0.5 * np.eye(size)])
    expected = np.linalg.lstsq(rows, np.concatenate([targets, np.zeros((size, 3))]), rcond=None)[0]
    np.testing.assert_allclose(probe.weights, expected, atol=1e-9)


def test_the_penalty_is_the_largest_of_those_that_do_best_on_dev():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 60)
    # Many features of noise and a weak one of signal: little penalty learns the noise by heart.
    features = rng.normal(size=(60, 200))
    features[:, :40] += 0.6 * labels[:, None]
    train, dev = (features[:30], labels[:30]), (features[30:], labels[30:])
    probe = ridge_probe(train, dev, 2)
    accuracies = {}
    for penalty in linear_probe.PENALTIES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(linear_probe, "PENALTIES", (penalty,))
            accuracies[penalty] = ridge_probe(train, dev, 2).dev_accuracy
    best = max(accuracies.values())
    assert min(accuracies.values()) < best == probe.dev_accuracy
    assert probe.penalty == max(penalty for penalty, value in accuracies.items() if value == best)
    assert (probe.classify(dev[0]) == dev[1]).mean() == pytest.approx(best)


def test_a_constant_feature_stays_finite():
    standard = Standard.of(np.array([[1.0, 5.0], [3.0, 5.0]], np.float32))
    np.testing.assert_allclose(standard.apply(np.array([[3.0, 6.0]])), [[1.0, 1.0]])


def test_few_labels_are_balanced_and_contained_in_more():
    labels = np.repeat([0, 1, 2], [100, 40, 3])
    names = np.array([f"{number}.wav" for number in range(143)])
    chosen = {share: balanced_budget(labels, names, share, seed=4) for share in (0.01, 0.05, 0.1, 1.0)}
    assert np.bincount(labels[chosen[0.01]]).tolist() == [1, 1, 1]
    assert np.bincount(labels[chosen[0.1]]).tolist() == [10, 4, 1]
    assert chosen[1.0].tolist() == list(range(143))
    assert set(chosen[0.01]) < set(chosen[0.05]) < set(chosen[0.1])
    assert set(balanced_budget(labels, names, 0.1, seed=5)) != set(chosen[0.1])
    order = np.random.default_rng(0).permutation(143)
    shuffled = balanced_budget(labels[order], names[order], 0.1, seed=4)
    assert set(names[order][shuffled]) == set(names[chosen[0.1]])


def corners(clips: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clips whose class is whether two features have the same sign: no linear map tells them apart."""
    features = np.random.default_rng(seed).choice([-1.0, 1.0], (clips, 2)).astype(np.float32)
    return features, (features[:, 0] == features[:, 1]).astype(int)


def test_a_small_network_learns_what_no_linear_probe_can():
    train, dev, test = corners(256, 0), corners(64, 1), corners(64, 2)
    assert (ridge_probe(train, dev, 2).classify(test[0]) == test[1]).mean() < 0.8
    probe = mlp_probe(train, dev, 2, seed=0)
    assert (probe.classify(test[0]) == test[1]).all()
    assert probe.dev_accuracy == 1.0
    again = mlp_probe(train, dev, 2, seed=0)
    np.testing.assert_array_equal(again.parameters["output"], probe.parameters["output"])


def test_the_learnt_sum_prefers_the_layer_that_tells():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 384)
    layers = rng.normal(size=(384, 3, 4)).astype(np.float32)
    layers[:, 1, 0] += 4.0 * (labels - labels.mean())
    probe = weighted_sum_probe((layers[:256], labels[:256]), (layers[256:], labels[256:]), 2, seed=0)
    weights = layer_weights(probe)
    assert sum(weights) == pytest.approx(1.0)
    assert weights[1] > max(weights[0], weights[2])
    assert probe.dev_accuracy > 0.9
