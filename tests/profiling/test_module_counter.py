import functools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from experiments.paper import RATIOS, TABLE_1
from experiments.reproduce.table1 import agrees, markdown, module_costs, ratios
from profiling.module_counter import LayerCost, count_modules
from w2v_jax.config import BASE, LARGE, SAMPLE_RATE_HZ


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_layers_are_told_from_products_of_data_with_data():
    def attention(parameters, x):
        with jax.named_scope("linear"):
            y = x @ parameters["kernel"] + parameters["bias"][None]
        with jax.named_scope("scores"):
            scores = jax.nn.softmax(y @ y.T + 1.0)
        with jax.named_scope("norm"):
            return (scores @ y) * parameters["scale"] + parameters["bias"][None]

    parameters = {"kernel": f32(5, 7), "bias": f32(7), "scale": f32()}
    found = count_modules(attention, parameters, f32(3, 5))
    assert found == {"linear": LayerCost(products=2 * 3 * 5 * 7, linear_bias=21)}


def test_loops_multiply_and_weights_may_be_computed_from_parameters():
    def stack(parameters, x):
        def body(x, kernel):
            return jnp.tanh(x @ (kernel / jnp.sqrt(jnp.square(kernel).sum()))), None

        return lax.scan(body, x, parameters)[0]

    assert count_modules(stack, f32(4, 6, 6), f32(3, 6)) == {"": LayerCost(products=4 * 2 * 3 * 36)}


def test_an_even_convolution_that_keeps_the_length_counts_the_output_that_is_cut_off():
    def convolve(kernel, x, taps):
        return lax.conv_general_dilated(
            x, kernel, (1,), [(taps // 2, taps - 1 - taps // 2)], dimension_numbers=("NWC", "WIO", "NWC")
        )

    for taps, outputs in ((4, 11), (5, 10)):
        found = count_modules(lambda k, x, taps=taps: convolve(k, x, taps), f32(taps, 2, 3), f32(1, 10, 2))
        assert found[""].products == 2 * outputs * 3 * 2 * taps


def formula(config, seconds, batch):
    """Table 1's rule, written down apart from the model: multiply-adds layer by layer."""
    frames, channels, cnn = round(seconds * SAMPLE_RATE_HZ), 1, 0
    for taps, stride, out in zip(config.conv_kernels, config.conv_strides, config.conv_channels, strict=True):
        frames = (frames - taps) // stride + 1
        cnn += 2 * frames * out * channels * taps
        channels = out
    width, inner, projected = config.hidden_dim, config.feed_forward_dim, config.projection_dim
    cnn += 2 * frames * channels * width
    layer = 2 * frames * (4 * width**2 + 2 * width * inner) + frames * (5 * width + inner)
    positional = 2 * (frames + 1) * width * (width // config.positional_groups) * config.positional_kernel
    codes = config.codebook_groups * config.codebook_entries
    quantization = 2 * frames * (channels * codes + width * projected + config.codevector_dim * projected)
    quantization += frames * (codes + 2 * projected)
    return {
        "cnn_encoder": batch * cnn,
        "transformer": batch * (config.num_layers * layer + positional),
        "quantization": batch * quantization,
    }


@given(
    seconds=st.floats(0.5, 20.0),
    batch=st.integers(1, 5),
    heads=st.integers(1, 3),
    layers=st.integers(1, 4),
    model=st.sampled_from([BASE, LARGE]),
)
@settings(max_examples=3, deadline=None)
def test_any_length_batch_and_width_follows_the_rule(seconds, batch, heads, layers, model):
    width = 64 * 16 * heads // 4
    config = model.replace(num_layers=layers, hidden_dim=width, num_heads=heads, feed_forward_dim=3 * width)
    found = module_costs(config, seconds, batch)
    for module, flops in formula(config, seconds, batch).items():
        assert found[module]["flops_paper"] == flops


costs = functools.cache(module_costs)  # tracing a model takes seconds


@pytest.fixture(scope="module")
def table():
    return [
        {"model": model, "module": module, **values}
        | dict(zip(("printed_params_m", "printed_gflops"), TABLE_1[model][module], strict=True))
        for model, config in (("base", BASE), ("large", LARGE))
        for module, values in costs(config, 5.5, 1).items()
    ]


def test_twelve_cells_come_out_as_printed_and_four_as_their_rows_say(table):
    cells = {
        (row["model"], row["module"], kind): (value, printed)
        for row in table
        for kind, value, printed in (
            ("params", row["params"] / 1e6, row["printed_params_m"]),
            ("flops", row["flops_paper"] / 1e9, row["printed_gflops"]),
        )
    }
    others = {key: round(value, 4) for key, (value, printed) in cells.items() if not agrees(value, printed)}
    assert others == {
        ("base", "total", "params"): 94.7812,
        ("base", "total", "flops"): 76.6903,
        ("large", "quantization", "flops"): 0.9344,
        ("large", "total", "flops"): 198.3756,
    }
    result = {"seconds": 5.5, "batch": 1, "rows": table, "ratios": ratios(table)}
    page = markdown(result | {"provenance": {"command": "", "commit": ""}})
    assert "12 of 16 cells come out as printed" in page
    assert "contradicts its own rows" in page


def test_the_ratios_of_the_text(table):
    for model, row in ratios(table).items():
        params, flops = RATIOS[model]
        assert f"{row['params']:.1f}" == f"{params:.1f}"
        assert f"{row['flops']:.2f}" == f"{flops:.2f}"


def test_attention_is_in_the_full_count_alone(table):
    full = {row["model"]: row["flops_full"] / 1e9 for row in table if row["module"] == "transformer"}
    # With the products of frames with frames, 51.91 and 177.48, and elementwise work on top.
    assert 51.91 < full["base"] < 51.91 * 1.01
    assert 177.48 < full["large"] < 177.48 * 1.01


def test_a_state_that_starts_as_zeros_is_data():
    def recurrent(parameters, x):
        def body(h, x):
            h = jnp.tanh(x @ parameters["w"] + h @ parameters["u"])
            return h, None

        return lax.scan(body, jnp.zeros((3, 7)), x)[0]

    found = count_modules(recurrent, {"w": f32(5, 7), "u": f32(7, 7)}, f32(4, 3, 5))
    assert sum(cost.products for cost in found.values()) == 4 * (2 * 3 * 5 * 7 + 2 * 3 * 7 * 7)


def test_a_conditional_costs_its_dearest_branch():
    def f(parameters, x):
        return lax.cond(x.sum() > 0, lambda: (x @ parameters) @ parameters, lambda: x)

    assert count_modules(f, f32(5, 5), f32(3, 5)) == {"": LayerCost(products=2 * 2 * 3 * 25)}


def test_the_form_of_the_convolutions_changes_no_row():
    rows = [costs(BASE.replace(convolution_form=form), 5.5, 1) for form in ("lax", "product")]
    assert rows[0] == rows[1]


def test_modules_sum_to_the_whole():
    from profiling.flops import count
    from w2v_jax.objective.pretraining import bind_model

    init, apply = bind_model(BASE)
    samples = 16_000
    shapes = (
        f32(1, samples),
        jax.ShapeDtypeStruct((1,), jnp.int32),
        jax.ShapeDtypeStruct((1, BASE.num_frames(samples)), jnp.bool_),
    )
    whole = count(apply, jax.eval_shape(init, jax.random.key(0)), *shapes).total
    rows = module_costs(BASE, 1.0, 1)
    total = rows.pop("total")
    assert total["flops_full"] == whole.flops + whole.padding_products
    for column in total:
        assert sum(row[column] for row in rows.values()) == total[column]
