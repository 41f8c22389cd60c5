import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from profiling.flops import Cost, count
from profiling.xla import operations
from tests.configs import SMALL, VARIANTS
from w2v_jax.batch import Batch
from w2v_jax.objective.pretraining import pretraining_objective
from w2v_jax.platforms import lowering_for

LAYOUT = ("NWC", "WIO", "NWC")


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def layer(weights, x):
    with jax.named_scope("layer"):
        return jnp.tanh(x @ weights)


def test_a_product_is_two_operations_a_multiply_add():
    report = count(layer, f32(7, 5), f32(3, 7))
    assert report.rows == {("layer", "forward"): Cost(products=2 * 3 * 7 * 5, transcendental=15)}
    assert not report.unpriced


def test_a_fourier_transform_costs_five_n_log_n_and_half_for_real_numbers():
    for function, dtype, each in (
        (jnp.fft.fft, jnp.complex64, 5 * 512 * 9),
        (lambda x: jnp.fft.rfft(x, 512), jnp.float32, 5 * 512 * 9 // 2),
    ):
        given = jax.ShapeDtypeStruct((3, 7, 512), dtype)
        report = count(function, given)
        assert report.rows == {("", "forward"): Cost(elementwise=3 * 7 * each)}
        assert not report.unpriced
        # XLA charges a transform more, by a formula of its own, but no other order of size.
        assert 3 * 7 * each <= operations(jax.jit(function).lower(given).compile()) < 8 * 3 * 7 * each


def test_scan_costs_what_the_unrolled_loop_costs():
    def scanned(stack, x):
        return lax.scan(lambda x, w: (layer(w, x), None), x, stack)[0]

    def unrolled(stack, x):
        for index in range(4):
            x = layer(stack[index], x)
        return x

    def loss(f):
        # With respect to both: a scan also carries a gradient for x where nobody wants one.
        return jax.grad(lambda stack, x: f(stack, x).sum(), (0, 1))

    for wrap in (lambda f: f, loss):
        ours, theirs = (count(wrap(f), f32(4, 5, 5), f32(3, 5)).total for f in (scanned, unrolled))
        assert ours.products == theirs.products > 0
        assert ours.transcendental == theirs.transcendental


@pytest.mark.parametrize("manual", [("rows",), ("columns",), ("rows", "columns")], ids=str)
def test_a_sharded_map_costs_what_it_costs_on_one_device(manual):
    """Whether all axes of a mesh are manual, or some are left to the compiler."""
    mesh = jax.make_mesh((2, 4), ("rows", "columns"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    spec = jax.sharding.PartitionSpec(*(axis if axis in manual else None for axis in ("rows", "columns")))

    def double(x):
        return jnp.tanh(x * 2.0)

    mapped = jax.shard_map(double, mesh=mesh, in_specs=spec, out_specs=spec, axis_names=set(manual))
    found = count(mapped, f32(8, 16))
    assert found.total == count(double, f32(8, 16)).total
    assert found.unpriced == {}


def test_a_sharded_map_within_another_costs_what_it_costs_on_one_device():
    mesh = jax.make_mesh((2, 4), ("rows", "columns"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    rows, columns = jax.sharding.PartitionSpec("rows"), jax.sharding.PartitionSpec(None, "columns")

    def inner(x):
        return jax.shard_map(
            lambda y: jax.lax.psum(jnp.tanh(y), "columns"), mesh=None, in_specs=columns,
            out_specs=jax.sharding.PartitionSpec(), axis_names={"columns"},
        )(x)  # fmt: skip

    outer = jax.shard_map(inner, mesh=mesh, in_specs=rows, out_specs=rows, axis_names={"rows"})
    found = count(jax.jit(outer), f32(8, 16))
    assert found.total == Cost(transcendental=8 * 16)
    assert found.unpriced == {}


def test_vmapped_clients_cost_as_many_times_one():
    def step(weights, x):
        return jax.grad(lambda w: layer(w, x).sum())(weights)

    one = count(step, f32(5, 5), f32(3, 5)).total
    assert count(jax.vmap(step), f32(6, 5, 5), f32(6, 3, 5)).total == one.times(6)


def test_backward_is_told_from_forward_and_costs_twice():
    def step(weights, x):
        return jax.grad(lambda w, x: jnp.square(layer(w, x)).sum(), (0, 1))(weights, x)

    rows = count(step, f32(5, 4), f32(3, 5)).rows
    assert rows["layer", "backward"].products == 2 * rows["layer", "forward"].products == 4 * 3 * 5 * 4


def test_rematerialised_work_is_counted_again():
    def step(remat):
        f = jax.checkpoint(layer) if remat else layer
        return count(jax.grad(lambda w, x: jnp.square(f(w, x)).sum(), (0, 1)), f32(5, 4), f32(3, 5)).total

    assert step(True).products > step(False).products


def test_a_conditional_costs_its_dearest_branch():
    def f(flag, w, x):
        return lax.cond(flag, lambda: layer(w, layer(w, x)), lambda: x + 1.0)

    flag = jax.ShapeDtypeStruct((), jnp.bool_)
    assert count(f, flag, f32(5, 5), f32(3, 5)).total.products == 2 * (2 * 3 * 5 * 5)


def test_loops_without_a_known_length_and_unknown_primitives_are_named():
    def loop(x):
        return lax.while_loop(lambda v: v.sum() < 10, lambda v: v * 2, x)

    assert count(loop, f32(3)).unpriced == {"while loop": 1}
    assert count(jnp.linalg.eigh, f32(4, 4)).unpriced.keys() & {"eigh", "eigh_p"}


def brute_force(length, taps, stride, before, after, hole, spread):
    """(taps that meet the input, taps on padding) by trying each."""
    dilated = (length - 1) * hole + 1
    steps = (before + dilated + after - ((taps - 1) * spread + 1)) // stride + 1
    met = missed = 0
    for step, tap in itertools.product(range(steps), range(taps)):
        at = step * stride + tap * spread - before
        inside = 0 <= at < dilated
        met += inside and at % hole == 0
        missed += not inside and hole == 1
    return steps, met, missed


@given(
    length=st.integers(6, 20), taps=st.integers(1, 4), stride=st.integers(1, 3), before=st.integers(0, 3),
    after=st.integers(0, 3), hole=st.integers(1, 3), spread=st.integers(1, 2), groups=st.sampled_from([1, 2]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_convolutions_count_taps_that_meet_the_input(
    length, taps, stride, before, after, hole, spread, groups
):
    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride,), [(before, after)], (hole,), (spread,), LAYOUT, groups
        )

    total = count(convolve, f32(2, length, 4), f32(taps, 4 // groups, 6)).total
    _, met, missed = brute_force(length, taps, stride, before, after, hole, spread)
    each = 2 * 2 * 6 * (4 // groups)
    assert (total.products, total.padding_products) == (each * met, each * missed)


@given(
    length=st.integers(12, 30),
    taps=st.integers(1, 5),
    stride=st.integers(1, 4),
    groups=st.sampled_from([1, 2, 3]),
)
@settings(max_examples=25, deadline=None)
def test_each_derivative_of_a_convolution_costs_what_it_costs(length, taps, stride, groups):
    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride,), [(1, 2)], dimension_numbers=LAYOUT, feature_group_count=groups
        )

    shapes = f32(2, length, 6), f32(taps, 6 // groups, 12)
    forward = count(convolve, *shapes).total.products
    both = count(jax.grad(lambda x, k: jnp.square(convolve(x, k)).sum(), (0, 1)), *shapes).total.products
    assert both == 3 * forward


def test_batch_groups_share_the_work():
    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1,), [(0, 0)], dimension_numbers=LAYOUT, batch_group_count=2
        )

    shapes = f32(4, 10, 3), f32(3, 3, 6)
    assert count(convolve, *shapes).total.products == 2 * 2 * 8 * 6 * 3 * 3
    np.testing.assert_allclose(
        operations(jax.jit(convolve).lower(*shapes).compile()), 2 * 2 * 8 * 6 * 3 * 3, rtol=0.01
    )


def test_reductions_by_a_function_are_priced_and_kernels_are_named():
    def reduce(x):
        return lax.reduce(x, jnp.float32(0), lambda a, b: a + b * b, (0,))

    assert count(reduce, f32(1000, 3)).total.elementwise == 2 * 3000
    windows = count(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (4,), (4,), "VALID"), f32(40))
    assert windows.total.elementwise == 40
    assert not windows.unpriced
    general = count(
        lambda x: lax.reduce_window(x, jnp.float32(0), lambda a, b: a + 2 * b, (4,), (4,), "VALID"), f32(40)
    )
    assert general.unpriced == {"reduce_window": 1}


def test_a_platforms_form_changes_what_is_done_not_what_it_costs():
    products = {}
    for platform in ("cpu", "gpu"):
        with lowering_for(platform):
            objective, shapes = arguments(SMALL)
            products[platform] = count(objective.value_and_grad, *shapes).total
    assert products["cpu"].products == pytest.approx(products["gpu"].products, rel=0.01)


def arguments(config):
    objective = pretraining_objective(config)
    parameters = jax.eval_shape(objective.init, jax.random.key(0))[0]
    batch = Batch(f32(2, 900), jax.ShapeDtypeStruct((2,), jnp.int32), jax.ShapeDtypeStruct((2,), jnp.uint32))
    key = jax.eval_shape(lambda: jax.random.key(0))
    return objective, (parameters, {}, batch, key, jax.ShapeDtypeStruct((), jnp.int32))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_whole_training_step_is_priced_module_by_module(name):
    objective, shapes = arguments(VARIANTS[name])
    report = count(objective.value_and_grad, *shapes)
    assert not report.unpriced
    for depth in (1, 2, 3):
        assert sum(report.by_module(depth).values(), Cost()) == report.total
    # Linear layers of the transformer, and two products of frames with frames, in both layers.
    frames, width = SMALL.num_frames(900), SMALL.hidden_dim
    linears = 2 * 2 * frames * (4 * width * width + 2 * width * SMALL.feed_forward_dim)
    attention = 2 * 2 * 2 * frames * frames * width
    scan = [key for key in report.rows if "/layers/" in key[0] and key[1] == "forward"]
    assert sum(report.rows[key].products for key in scan) == SMALL.num_layers * (linears + attention)
    modules = {scope for scope, _ in report.by_module(2)}
    assert {f"Wav2Vec2/{m}" for m in ("feature_encoder", "context_network", "quantizer")} <= modules


def test_how_a_convolution_is_computed_changes_its_price_by_the_padding_alone():
    products = {}
    for form in ("lax", "product"):
        objective, shapes = arguments(SMALL.replace(convolution_form=form))
        rows = count(objective.value_and_grad, *shapes).rows
        forward = [c for (scope, d), c in rows.items() if "conv_layers" in scope and d == "forward"]
        products[form] = sum(cost.products for cost in forward)
    assert products["lax"] == products["product"] > 0


def test_other_counters_take_a_loops_body_once_and_this_one_does_not():
    from jax.experimental import roofline

    def stack(weights, x):
        return lax.scan(lambda x, w: (layer(w, x), None), x, weights)[0]

    shapes = f32(24, 64, 64), f32(8, 64)
    _, theirs = roofline.roofline(stack)(*shapes)
    assert count(stack, *shapes).total.products == 24 * theirs.flops == 24 * 2 * 8 * 64 * 64


def test_xla_agrees_on_an_unrolled_program():
    def f(weights, x, kernel):
        y = lax.conv_general_dilated(x, kernel, (2,), [(0, 0)], dimension_numbers=LAYOUT)
        return jnp.square(y @ weights).sum()

    shapes = f32(16, 32), f32(4, 101, 8), f32(3, 8, 16)
    ours = count(f, *shapes).total
    theirs = operations(jax.jit(f).lower(*shapes).compile())
    assert ours.products <= theirs <= ours.products + 3 * ours.elementwise
    np.testing.assert_allclose(ours.flops, theirs, rtol=0.01)
