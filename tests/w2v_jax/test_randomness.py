import jax
import jax.numpy as jnp
import numpy as np

from w2v_jax.randomness import Stream, attention_dropout, dropout, stream_key, utterance_keys


def keys(n=2):
    return jax.random.split(jax.random.key(0), n)


def test_partitionable_draws_are_prefixes():
    # What docs/decisions/0004 stands on.
    key = jax.random.key(5)
    np.testing.assert_array_equal(jax.random.uniform(key, (9, 4))[:5], jax.random.uniform(key, (5, 4)))


def test_dropout_keeps_the_mean_and_ignores_padding():
    x = jnp.ones((2, 400, 50))
    out = dropout(x, 0.3, keys())
    np.testing.assert_allclose(out.mean(), 1.0, atol=0.02)
    np.testing.assert_allclose((out == 0).mean(), 0.3, atol=0.02)
    np.testing.assert_array_equal(out[:, :100], dropout(x[:, :100], 0.3, keys()))
    assert dropout(x, 0.3, None) is x
    assert dropout(x, 0.0, keys()) is x


def test_attention_dropout_ignores_padding_on_both_axes():
    weights = jnp.ones((2, 3, 20, 20))
    whole, part = (
        attention_dropout(weights, 0.4, keys()),
        attention_dropout(weights[:, :, :12, :12], 0.4, keys()),
    )
    np.testing.assert_array_equal(whole[:, :, :12, :12], part)
    np.testing.assert_allclose((whole == 0).mean(), 0.4, atol=0.05)


def test_streams_and_utterances_have_keys_of_their_own():
    ids = jnp.arange(3, dtype=jnp.uint32)
    drawn = {
        np.asarray(jax.random.key_data(k)).tobytes()
        for stream in Stream
        for k in utterance_keys(jax.random.key(1), ids, stream)
    }
    assert len(drawn) == 3 * len(Stream)
    assert len(
        {np.asarray(jax.random.key_data(stream_key(jax.random.key(1), s))).tobytes() for s in Stream}
    ) == len(Stream)
