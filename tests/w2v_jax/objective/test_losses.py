import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v_jax.objective import losses
from w2v_jax.objective.negatives import count_negatives

# Compiled whole: operation by operation, each would be compiled alone.
contrastive = jax.jit(losses.contrastive, static_argnums=3)
cosine_similarity = jax.jit(losses.cosine_similarity)
chance_accuracy = jax.jit(losses.chance_accuracy)
perplexity, diversity = jax.jit(losses.perplexity), jax.jit(losses.diversity)
masked_mean = jax.jit(losses.masked_mean)
count = jax.jit(count_negatives)


def gathered_contrastive(context, targets, codes, negatives, mask, temperature):
    """A slow NumPy twin that gathers every negative."""
    batch, time, _ = context.shape
    loss, correct = np.zeros((batch, time)), np.zeros((batch, time), bool)

    def cosine(a, b):
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))

    for b in range(batch):
        for t in np.flatnonzero(mask[b]):
            positive = cosine(context[b, t], targets[b, t]) / temperature
            rivals = [
                cosine(context[b, t], targets[b, j]) / temperature
                for j in negatives[b, t]
                if not (codes[b, j] == codes[b, t]).all()
            ]
            loss[b, t] = np.log(np.exp(positive) + np.exp(rivals).sum()) - positive
            correct[b, t] = all(positive > rival for rival in rivals)
    return loss, correct


def example(seed=0, entries=4):
    rng = np.random.default_rng(seed)
    mask = rng.random((2, 9)) < 0.7
    mask[:, :3] = True
    negatives = np.zeros((2, 9, 6), int)
    for b in range(2):
        masked = np.flatnonzero(mask[b])
        for t in masked:
            negatives[b, t] = rng.choice(masked[masked != t], 6)
    codes = rng.integers(0, entries, (2, 9, 2))
    book = rng.standard_normal((entries, entries, 5))
    targets = book[codes[..., 0], codes[..., 1]]
    return rng.standard_normal((2, 9, 5)), targets, codes, negatives, mask


@pytest.mark.parametrize("entries", [2, 4, 50])
def test_contrastive_equals_gathered_twin(entries):
    context, targets, codes, negatives, mask = example(entries=entries)
    counts = count(jnp.asarray(negatives), jnp.asarray(mask))
    similarity = cosine_similarity(jnp.asarray(context, jnp.float32), jnp.asarray(targets, jnp.float32))
    ours = contrastive(similarity, jnp.asarray(codes), counts, 0.1)
    loss, correct = gathered_contrastive(context, targets, codes, negatives, mask, 0.1)
    np.testing.assert_allclose(np.asarray(ours.loss)[mask], loss[mask], rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(np.asarray(ours.correct)[mask], correct[mask])


def test_hand_value():
    # One negative at cosine 0, the positive at cosine 1, temperature 1: log(e + 1) - 1.
    similarity = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    codes, counts = jnp.array([[[0], [1]]]), jnp.array([[[0, 1], [1, 0]]])
    loss = contrastive(similarity, codes, counts, 1.0).loss
    np.testing.assert_allclose(loss, np.log(np.e + 1) - 1, rtol=1e-6)


def test_all_equal_codes_give_zero_loss_and_finite_gradients():
    context, targets, _, negatives, mask = example()
    codes = jnp.zeros((2, 9, 2), int)
    counts = count(jnp.asarray(negatives), jnp.asarray(mask))

    def loss(context):
        similarity = cosine_similarity(context, jnp.asarray(targets, jnp.float32))
        return contrastive(similarity, codes, counts, 0.1).loss.sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(context, jnp.float32))
    assert value == 0.0
    assert jnp.isfinite(gradient).all()


def test_a_tie_is_wrong():
    similarity = jnp.ones((1, 2, 2))
    codes, counts = jnp.array([[[0], [1]]]), jnp.array([[[0, 1], [1, 0]]])
    assert not contrastive(similarity, codes, counts, 0.1).correct.any()


def test_zero_vectors_have_finite_gradients():
    gradient = jax.jit(jax.grad(lambda x: cosine_similarity(x, x).sum()))(jnp.zeros((1, 3, 4)))
    assert jnp.isfinite(gradient).all()


def test_perplexity_bounds():
    uniform = jnp.full((2, 320), 1 / 320)
    one_hot = jax.nn.one_hot(jnp.array([3, 5]), 320)
    np.testing.assert_allclose(perplexity(uniform), 640, rtol=1e-4)
    np.testing.assert_allclose(perplexity(one_hot), 2, rtol=1e-4)
    np.testing.assert_allclose(diversity(uniform), 0, atol=1e-4)
    np.testing.assert_allclose(diversity(one_hot), 638 / 640, rtol=1e-5)


def test_chance_accuracy_counts_distinct_live_codes():
    # Frame 0 has drawn frames 1, 2, 3: codes b, b and its own a -> one live code -> 1/2.
    codes = jnp.array([[[0], [1], [1], [0]]])
    counts = jnp.array([[[0, 2, 1, 4], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]])
    np.testing.assert_allclose(chance_accuracy(codes, counts)[0, 0], 0.5)
    np.testing.assert_allclose(chance_accuracy(codes, counts)[0, 1], 1.0)


def test_masked_mean_ignores_the_rest():
    values = jnp.array([[1.0, 2.0, jnp.float32(1e6)]])
    assert masked_mean(values, jnp.array([[True, True, False]])) == 1.5
    assert masked_mean(values, jnp.zeros((1, 3), bool)) == 0.0


def test_standard_error_matches_simulation():
    rng = np.random.default_rng(0)
    estimates, errors = [], []
    for _ in range(300):
        mask = rng.random((40, 30)) < 0.5
        correct = rng.random((40, 30)) < rng.beta(2, 8, (40, 1))
        moments = losses.utterance_moments(jnp.asarray(correct), jnp.asarray(mask))
        estimates.append(correct[mask].mean())
        errors.append(losses.ratio_standard_error(np.asarray(moments, np.float64)))
    np.testing.assert_allclose(np.mean(errors), np.std(estimates), rtol=0.15)
