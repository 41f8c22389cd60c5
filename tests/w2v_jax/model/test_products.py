import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v_jax import platforms
from w2v_jax.model import products


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("spec", "left", "right"),
    [("btd,de->bte", (2, 5, 4), (4, 3)), ("bqhd,bkhd->bhqk", (2, 5, 3, 4), (2, 6, 3, 4))],
)
def test_mixed_products_accumulate_in_fp32_both_ways(spec, left, right, dtype):
    rng = np.random.default_rng(1)
    a, b = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in (left, right))

    def total(dtype):
        return jax.value_and_grad(lambda a, b: jnp.square(products.einsum(spec, a, b, dtype)).sum(), (0, 1))(
            a, b
        )

    (mixed, mixed_gradients), (plain, gradients) = total(dtype), total("float32")
    assert mixed.dtype == jnp.float32
    np.testing.assert_allclose(mixed, plain, rtol=0.02)
    for ours, theirs in zip(mixed_gradients, gradients, strict=True):
        assert ours.dtype == jnp.float32
        assert 0 < float(jnp.abs(ours - theirs).max()) < 0.05 * float(jnp.abs(theirs).max())


def test_a_weight_is_kept_once_for_the_backward_pass():
    a, b = jnp.ones((2, 5, 4)), jnp.ones((4, 3))

    def kept(spec, *operands):
        _, backward = jax.vjp(lambda *o: products.einsum(spec, *o, "float16"), *operands)
        return sorted(str(leaf.dtype) for leaf in jax.tree.leaves(backward) if leaf.ndim > 1)

    # The rounded activations, and the weight itself rather than a rounded copy of it.
    assert kept("btd,de->bte", a, b) == ["float16", "float32"]
    assert kept("btd,bfd->btf", a, a) == ["float16", "float16"]


def test_gpus_round_results_but_for_the_gradients_of_weights():
    def rounded(x):
        return bool((x.astype(jnp.bfloat16).astype(jnp.float32) == x).all())

    a, b = (
        jax.random.normal(jax.random.key(seed), shape) for seed, shape in enumerate([(2, 5, 64), (64, 3)])
    )

    def run():
        out, pull = jax.vjp(lambda a, b: products.einsum("btd,de->bte", a, b, "bfloat16"), a, b)
        return out, *pull(out)

    with platforms.lowering_for("gpu"):
        on_gpu = run()
    assert [rounded(x) for x in on_gpu] == [True, True, False]
    assert [rounded(x) for x in run()] == [False, False, False]
    assert all(x.dtype == jnp.float32 for x in on_gpu)
