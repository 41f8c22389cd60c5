import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v_jax.objective.negatives import count_negatives, sample_negatives

# Compiled whole: operation by operation, each would be compiled alone.
draw = jax.jit(sample_negatives, static_argnums=2)
count = jax.jit(count_negatives)


def sample(mask, number=100, seed=0):
    mask = jnp.asarray(mask)
    keys = jax.random.split(jax.random.key(seed), mask.shape[0])
    return np.asarray(draw(keys, mask, number))


def test_never_the_positive_always_masked_same_utterance():
    mask = np.random.default_rng(0).random((4, 30)) < 0.5
    indices = sample(mask, 300)
    for row in range(4):
        for frame in np.flatnonzero(mask[row]):
            drawn = indices[row, frame]
            assert frame not in drawn
            assert mask[row, drawn].all()
            # 300 draws from about 14 frames reach every one of them.
            assert set(drawn) == set(np.flatnonzero(mask[row])) - {frame}


def test_uniform_over_the_others():
    mask = np.ones((1, 11), bool)
    drawn = sample(mask, 20_000)[0, 4]
    counts = np.bincount(drawn, minlength=11)
    assert counts[4] == 0
    np.testing.assert_allclose(np.delete(counts, 4), 2000, rtol=0.12)


@pytest.mark.parametrize("masked", [0, 1, 2])
def test_few_masked_frames(masked):
    mask = np.zeros((1, 6), bool)
    mask[0, 1 : 1 + masked] = True
    counts = np.asarray(count(jnp.asarray(sample(mask, 7)), jnp.asarray(mask)))[0]
    expected = np.zeros((6, 6), int)
    if masked == 2:
        expected[1, 2] = expected[2, 1] = 7
    np.testing.assert_array_equal(counts, expected)


def test_counts_are_of_masked_rows_only():
    mask = np.random.default_rng(1).random((3, 20)) < 0.4
    counts = np.asarray(count(jnp.asarray(sample(mask, 50)), jnp.asarray(mask)))
    np.testing.assert_array_equal(counts.sum(-1), np.where(mask, 50, 0))
    assert (np.diagonal(counts, axis1=1, axis2=2) == 0).all()


def test_padding_changes_no_draw():
    mask = np.random.default_rng(2).random((2, 20)) < 0.5
    padded = np.concatenate([mask, np.zeros((2, 9), bool)], axis=1)
    ours, theirs = sample(mask), sample(padded)[:, :20]
    np.testing.assert_array_equal(ours[mask], theirs[mask])
