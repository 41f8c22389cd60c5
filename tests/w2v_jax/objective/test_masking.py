import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from w2v_jax.objective.masking import span_mask

# Compiled whole: operation by operation, each would be compiled alone.
draw = jax.jit(span_mask, static_argnames=("total_frames", "probability", "span", "min_spans"))


def masks(lengths, total, *, probability=0.65, span=10, min_spans=2, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(lengths))
    return np.asarray(
        draw(
            keys,
            jnp.array(lengths, jnp.int32),
            total,
            probability=probability,
            span=span,
            min_spans=min_spans,
        )
    )


def runs(row):
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return edges[1::2] - edges[::2]


@given(length=st.integers(0, 90), span=st.sampled_from([1, 3, 10, 12]), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_spans_are_whole_and_inside_the_utterance(length, span, seed):
    mask = masks([length], 96, span=span, seed=seed)[0]
    assert not mask[length:].any()
    assert all(run >= span for run in runs(mask))
    assert mask.any() == (length >= span)


def test_padding_changes_no_mask():
    short, long = masks([50, 70], 70), masks([50, 70], 120)
    np.testing.assert_array_equal(short, long[:, :70])


def test_masked_share_is_that_of_the_paper():
    # About 49 % of frames for p = 0.065 starts of spans of 10 (wav2vec 2.0, section 4.2).
    mask = masks([1000] * 64, 1000)
    assert 0.45 < mask.mean() < 0.52


def test_starts_are_uniform_over_the_utterance():
    mask = masks([40] * 4000, 40, span=5, probability=0.1, min_spans=1)
    share = mask.mean(0)
    inside = share[5:35]
    np.testing.assert_allclose(inside, inside.mean(), rtol=0.25)
