import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from w2v_jax.model import convolutions
from w2v_jax.platforms import lowering_for


def reference(x, kernel, stride, groups=1, padding=(0, 0)):
    """jax's own convolution with jax's own derivatives."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride,),
        [padding],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST,
    )


def assert_same_with_gradients(ours, theirs, x, kernel):
    """Values and both gradients, under the same cotangent."""
    value, pull = jax.vjp(ours, x, kernel)
    expected, expected_pull = jax.vjp(theirs, x, kernel)
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, atol=1e-4)
    cotangent = jnp.asarray(np.random.default_rng(9).standard_normal(value.shape), jnp.float32)
    for gradient, expected_gradient in zip(pull(cotangent), expected_pull(cotangent), strict=True):
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-4)


SHAPES = {
    "taps": st.integers(1, 11),
    "stride": st.integers(1, 6),
    "extra": st.integers(0, 23),
    "channels": st.integers(1, 3),
    "form": st.sampled_from(["product", "lax"]),
}


def check_strided_convolution(taps, stride, extra, channels, form):
    rng = np.random.default_rng(taps * 100 + stride)
    x = jnp.asarray(rng.standard_normal((2, taps + extra, channels)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((taps, channels, 4)), jnp.float32)

    def ours(x, kernel):
        return convolutions.strided_convolution(x, kernel, stride, form, "float32")

    assert ours(x, kernel).shape == (2, extra // stride + 1, 4)
    assert_same_with_gradients(ours, lambda x, k: reference(x, k, stride), x, kernel)


@pytest.mark.parametrize("form", ["product", "lax"])
@pytest.mark.parametrize(
    ("taps", "stride", "extra", "channels"), [(10, 5, 23, 1), (3, 2, 7, 3), (2, 2, 0, 2), (1, 6, 5, 2)]
)
def test_strided_convolution_and_its_gradients(taps, stride, extra, channels, form):
    check_strided_convolution(taps, stride, extra, channels, form)


@pytest.mark.slow
@given(**SHAPES)
@settings(max_examples=60, deadline=None)
def test_strided_convolution_of_any_shape(taps, stride, extra, channels, form):
    check_strided_convolution(taps, stride, extra, channels, form)


@pytest.mark.parametrize("form", ["product", "lax"])
@pytest.mark.parametrize("taps", [7, 8])
def test_positional_convolution_keeps_the_length_and_its_gradients_are_right(taps, form):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 13, 12)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((taps, 3, 12)), jnp.float32)

    def ours(x, kernel):
        return convolutions.positional_convolution(x, kernel, 4, form, "float32")

    assert ours(x, kernel).shape == x.shape
    padding = (taps // 2, taps - 1 - taps // 2)
    assert_same_with_gradients(ours, lambda x, k: reference(x, k, 1, 4, padding), x, kernel)


@pytest.mark.parametrize(
    ("taps", "groups", "time"),
    [
        pytest.param(128, 4, 27, marks=pytest.mark.slow),
        (33, 2, 5),
        (40, 1, 64),
        pytest.param(128, 4, 130, marks=pytest.mark.slow),
    ],
)
def test_gpus_take_many_taps_as_a_product_over_blocks_of_frames(taps, groups, time):
    rng = np.random.default_rng(taps)
    x = jnp.asarray(rng.standard_normal((2, time, 8)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((taps, 8 // groups, 8)) / taps, jnp.float32)

    def ours(x, kernel):
        with lowering_for("gpu"):
            return convolutions.positional_convolution(x, kernel, groups, "product", "float32")

    assert "conv_general_dilated" not in str(jax.make_jaxpr(ours)(x, kernel))
    padding = (taps // 2, taps - 1 - taps // 2)
    assert_same_with_gradients(ours, lambda x, k: reference(x, k, 1, groups, padding), x, kernel)


def test_gpus_take_whole_windows():
    rng = np.random.default_rng(3)
    for taps, stride, extra in ((3, 2, 9), (10, 5, 7), (2, 2, 4), (4, 5, 8)):
        x = jnp.asarray(rng.standard_normal((2, taps + extra, 3)), jnp.float32)
        kernel = jnp.asarray(rng.standard_normal((taps, 3, 4)), jnp.float32)

        def ours(x, kernel, stride=stride):
            with lowering_for("gpu"):
                return convolutions.strided_convolution(x, kernel, stride, "product", "float32")

        assert str(jax.make_jaxpr(ours)(x, kernel)).count("dot_general") == 1
        assert_same_with_gradients(ours, lambda x, k, s=stride: reference(x, k, s), x, kernel)


def test_lax_form_in_bfloat16_is_near_and_its_gradients_too():
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((2, 40, 4)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 4, 8)), jnp.float32)

    def total(dtype):
        def loss(x, kernel):
            return jnp.square(convolutions.strided_convolution(x, kernel, 2, "lax", dtype)).sum()

        return jax.grad(loss, (0, 1))(x, kernel)

    for mixed, plain in zip(total("bfloat16"), total("float32"), strict=True):
        assert mixed.dtype == jnp.float32
        assert 0 < float(jnp.abs(mixed - plain).max()) < 0.05 * float(jnp.abs(plain).max())


def test_products_are_for_vmapped_clients_and_few_taps():
    assert convolutions.form_for_clients(1) == "lax"
    assert convolutions.form_for_clients(4) == "product"

    def operations(taps):
        x, kernel = jnp.ones((1, 200, 4)), jnp.ones((taps, 2, 4))
        program = jax.make_jaxpr(convolutions.positional_convolution, static_argnums=(2, 3, 4))(
            x, kernel, 2, "product", "float32"
        )
        return str(program)

    assert "conv_general_dilated" not in operations(16)
    assert "conv_general_dilated" in operations(128)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA:CPU")
def test_convolutions_inside_loops_compile_to_the_fast_form_of_cpu():
    """jax's own derivatives do not: dim_labels=f0b_i0o->0bf there, three times as slow (decision 3)."""

    def compiled(convolve):
        def step(kernel, x):
            return kernel - jax.grad(lambda k, x: convolve(x, k).sum(), (0, 1))(kernel, x)[0], None

        kernel, x = jnp.ones((3, 4, 4)), jnp.ones((5, 2, 64, 4))
        text = jax.jit(lambda k, x: jax.lax.scan(step, k, x)[0]).lower(kernel, x).compile().as_text()
        return [line for line in text.splitlines() if " convolution(" in line]

    def ours(x, kernel):
        once = convolutions.strided_convolution(x, kernel, 2, "lax", "float32")
        return convolutions.positional_convolution(jnp.square(once), kernel, 1, "lax", "float32")

    found = compiled(ours)
    assert len(found) >= 4
    assert all("dim_labels=b0f_0io->b0f" in line for line in found)
    native = compiled(lambda x, k: jnp.square(reference(x, k, 2)))
    assert not all("dim_labels=b0f_0io->b0f" in line for line in native)
