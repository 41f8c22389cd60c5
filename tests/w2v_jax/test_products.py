import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2v_jax import products


@given(
    taps=st.integers(1, 11), stride=st.integers(1, 6), extra=st.integers(0, 23), channels=st.integers(1, 3)
)
@settings(max_examples=25, deadline=None)
def test_product_form_equals_lax_convolution(taps, stride, extra, channels):
    rng = np.random.default_rng(taps * 100 + stride)
    x = jnp.asarray(rng.standard_normal((2, taps + extra, channels)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((taps, channels, 4)), jnp.float32)
    ours, theirs = (
        products.strided_convolution(x, kernel, stride, form, "float32") for form in ("product", "lax")
    )
    assert ours.shape == theirs.shape == (2, extra // stride + 1, 4)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("taps", [7, 8])
def test_positional_forms_agree_and_keep_the_length(taps):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 13, 12)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((taps, 3, 12)), jnp.float32)
    ours, theirs = (
        products.positional_convolution(x, kernel, 4, form, "float32") for form in ("product", "lax")
    )
    assert ours.shape == x.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "left", "right"),
    [("btd,de->bte", (2, 5, 4), (4, 3)), ("bqhd,bkhd->bhqk", (2, 5, 3, 4), (2, 6, 3, 4))],
)
def test_mixed_products_accumulate_in_fp32_both_ways(spec, left, right):
    rng = np.random.default_rng(1)
    a, b = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in (left, right))

    def total(dtype):
        return jax.value_and_grad(lambda a, b: jnp.square(products.einsum(spec, a, b, dtype)).sum(), (0, 1))(
            a, b
        )

    (mixed, mixed_gradients), (plain, gradients) = total("bfloat16"), total("float32")
    assert mixed.dtype == jnp.float32
    np.testing.assert_allclose(mixed, plain, rtol=0.02)
    for ours, theirs in zip(mixed_gradients, gradients, strict=True):
        assert ours.dtype == jnp.float32
        assert 0 < float(jnp.abs(ours - theirs).max()) < 0.05 * float(jnp.abs(theirs).max())


def test_automatic_form_is_by_backend():
    assert products.resolve_form("auto") == ("product" if jax.default_backend() == "cpu" else "lax")
    assert products.resolve_form("auto", taps=128) == "lax"
    assert products.resolve_form("product", taps=128) == "product"
    assert products.resolve_form("lax") == "lax"
