"""What takes another form on a GPU does the same there; run with JAX_PLATFORMS=cuda where there is one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v_jax.config import LARGE
from w2v_jax.model import convolutions
from w2v_jax.model.context import Attention

pytestmark = pytest.mark.skipif(jax.default_backend() != "gpu", reason="no GPU")


def relative(ours, theirs):
    """Norm of the difference over the norm."""
    ours, theirs = (np.asarray(x, np.float64) for x in (ours, theirs))
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("time", [64, 274])
def test_fused_attention_is_attention(time, monkeypatch):
    config = LARGE.replace(compute_dtype="bfloat16")
    attention = Attention(config, jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (3, time, config.hidden_dim))
    valid = jnp.arange(time)[None] < jnp.array([time, time // 2, 1])[:, None]

    def run():
        def total(x):
            out = attention(x, valid, None)
            return jnp.where(valid[..., None], out, 0.0).sum(), out

        (_, out), gradient = jax.value_and_grad(total, has_aux=True)(x)
        return jnp.where(valid[..., None], out, 0.0), gradient

    assert attention._fused(time, config.hidden_dim // config.num_heads, None)
    fused = run()
    monkeypatch.setattr(Attention, "_fused", lambda *_: False)
    for ours, theirs in zip(fused, run(), strict=True):
        assert np.isfinite(ours).all()
        assert relative(ours, theirs) < 2e-2


@pytest.mark.parametrize("clients", [1, 3])
def test_blocks_of_frames_are_the_positional_convolution(clients):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (clients, 2, 274, 768))
    kernel = 0.02 * jax.random.normal(keys[1], (clients, 128, 48, 768))

    def run(function):
        return jax.vmap(
            lambda x, k: jax.value_and_grad(lambda x, k: jnp.sin(function(x, k)).sum(), (0, 1))(x, k)
        )(x, kernel)

    blocks = run(lambda x, k: convolutions.positional_convolution(x, k, 16, "product", "bfloat16"))
    plain = run(lambda x, k: convolutions.positional_convolution(x, k, 16, "lax", "float32"))
    for ours, theirs in zip(jax.tree.leaves(blocks[1]), jax.tree.leaves(plain[1]), strict=True):
        assert relative(ours, theirs) < 2e-2
