import jax
import pytest

from experiments.costs import length_sweep
from experiments.costs.step import module_costs, round_price, training_step
from experiments.costs.step.paper_convention import module_costs as module_costs_of_table_1
from experiments.costs.step.training_step import StepSettings
from fed.compression import codec
from profiling import flops, residuals
from profiling.flops import count
from profiling.xla import operations
from tests.configs import SMALL, SMALL_BEST_RQ, SMALL_LOG_MEL, VARIANTS

TINY = StepSettings(model="tiny", seconds=1.0, batch=2, optimizer="sgd")
# Wide enough for products to outweigh the rest; without a loop, whose body XLA would count once.
UNROLLED = {
    name: config.replace(
        scan_unroll=2, hidden_dim=64, feed_forward_dim=256, conv_channels=(32, 32, 48), num_heads=4
    )
    for name, config in VARIANTS.items()
}


def step_of(config, seconds=0.125, batch=2, **changes):
    settings = StepSettings(model="tiny", seconds=seconds, batch=batch, **{"optimizer": "sgd", **changes})
    return training_step.build(settings, config)


LOG_MEL = {"best-rq": SMALL_BEST_RQ, "wav2vec2-log-mel": SMALL_LOG_MEL}


@pytest.mark.parametrize(
    ("name", "rematerialise"),
    [
        ("group-norm", True),
        ("layer-norm", False),
        ("best-rq", True),
        pytest.param("group-norm", False, marks=pytest.mark.slow),
        pytest.param("layer-norm", True, marks=pytest.mark.slow),
        pytest.param("best-rq", False, marks=pytest.mark.slow),
        pytest.param("wav2vec2-log-mel", False, marks=pytest.mark.slow),
    ],
)
def test_layers_sum_to_the_whole_to_the_last_operation(name, rematerialise):
    config = (VARIANTS | LOG_MEL)[name].replace(
        rematerialise_cnn=rematerialise, rematerialise_layers=rematerialise, dropout=0.1
    )
    step = step_of(config, seconds=0.5)
    costs = module_costs.step_costs(config, step)
    report = flops.count(step.function, *step.arguments)
    assert costs.total == report.total
    assert not costs.unpriced
    kept = residuals.residuals(step.loss, step.parameters, *step.arguments[1:])
    assert sum(costs.residual_bytes.values()) == kept.activations
    assert sum(costs.parameter_counts.values()) == training_step.tree_size(step.parameters)
    # Every layer has operations of its own, both ways.
    for layer in module_costs.layer_names(config):
        if layer == module_costs.LOG_MEL:  # nothing there is trained; its frames are kept for the projection
            assert costs.forward[layer].products > 0
            assert costs.backward[layer] == flops.Cost()
            assert costs.parameter_counts[layer] == 0
            assert costs.residual_bytes[layer] == 2 * 24 * config.feature_dim * 4
        elif layer not in (module_costs.OTHER, "optimizer"):
            assert costs.forward[layer].products > 0, layer
            assert costs.backward[layer].products > 0, layer
            assert costs.parameter_counts[layer] > 0, layer
    assert costs.forward[module_costs.OTHER].products < 0.2 * costs.total.products


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("group-norm", "product"),
        pytest.param("group-norm", "lax", marks=pytest.mark.slow),
        pytest.param("layer-norm", "product", marks=pytest.mark.slow),
        pytest.param("layer-norm", "lax", marks=pytest.mark.slow),
    ],
)
def test_xla_agrees_on_the_whole_unrolled_step_within_elementwise_work(name, form):
    step = step_of(UNROLLED[name].replace(convolution_form=form))
    ours = count(step.function, *step.arguments)
    theirs = operations(step.compile())
    assert not ours.unpriced
    total = ours.total
    # XLA charges an exact GELU up to 64 operations an element.
    assert total.products <= theirs <= total.products + total.elementwise + 64 * total.transcendental
    assert theirs < 1.2 * total.products


def test_clients_side_by_side_cost_as_many_times_one():
    step = step_of(SMALL.replace(convolution_form="product", dropout=0.1))
    one = count(step.function, *step.arguments).total

    def stacked(leaf):
        return jax.ShapeDtypeStruct((3, *leaf.shape), leaf.dtype)

    many = jax.tree.map(stacked, step.arguments[:2])
    both = count(jax.vmap(step.function, in_axes=(0, 0, None, None)), *many, *step.arguments[2:]).total
    assert both.products == 3 * one.products
    assert both.flops == pytest.approx(3 * one.flops, rel=0.01)  # what all share is computed once


def test_a_round_costs_all_steps_of_all_clients():
    one = round_price.round_price(TINY, clients=1, local_steps=1)
    many = round_price.round_price(TINY, clients=6, local_steps=5)
    step = training_step.build(TINY)
    assert one["client_flops"] == pytest.approx(count(step.function, *step.arguments).total.flops, rel=0.02)
    assert many["client_flops"] == pytest.approx(30 * one["client_flops"], rel=0.001)
    assert many["bytes_up"] == 6 * one["bytes_up"] == 6 * training_step.tree_bytes(step.parameters)
    assert many["audio_seconds"] == 6 * 5 * 2 * 1.0
    assert 0 < many["server_flops"] < 0.01 * many["client_flops"]
    assert not many["unpriced"]


def test_rematerialising_keeps_less_and_computes_more():
    plain, remat = (
        module_costs.step_costs(config, step_of(config))
        for config in (
            SMALL.replace(rematerialise_cnn=flag, rematerialise_layers=flag) for flag in (False, True)
        )
    )
    assert sum(remat.residual_bytes.values()) < 0.6 * sum(plain.residual_bytes.values())
    assert remat.total.products > 1.2 * plain.total.products


def test_a_fit_finds_slope_and_quadratic_term():
    seconds = [1.0, 2.0, 5.0, 10.0, 30.0]
    found = length_sweep.fit(seconds, [3 + 2 * s + 0.5 * s**2 for s in seconds])
    assert (found["constant"], found["slope"], found["quadratic"]) == pytest.approx((3, 2, 0.5))
    assert found["quadratic_share"] == pytest.approx(450 / 513)


def test_best_rq_by_the_convention_of_table_1():
    """Multiply-adds and biases of linear layers, written down apart from the model."""
    config, seconds, batch = SMALL_BEST_RQ, 1.0, 2
    found = module_costs_of_table_1(config, seconds, batch)
    windows = 98
    frames = windows // config.log_mel_stack
    width, inner = config.hidden_dim, config.feed_forward_dim
    codes = config.target_codebooks * config.target_entries
    layer = 2 * frames * (4 * width**2 + 2 * width * inner) + frames * (5 * width + inner)
    taps = config.positional_kernel
    positional = 2 * (frames + 1) * width * (width // config.positional_groups) * taps
    # The mel filters are a linear map of 257 frequencies, though a fixed one; so is the random projection.
    filters = 2 * windows * 257 * config.log_mel_bands
    assert found["cnn_encoder"]["flops_paper"] == batch * (filters + 2 * frames * config.feature_dim * width)
    assert found["transformer"]["flops_paper"] == batch * (config.num_layers * layer + positional)
    projection = 2 * frames * config.feature_dim * config.target_codebooks * config.target_dim
    heads = frames * codes * (2 * width + 1)
    assert found["quantization"]["flops_paper"] == batch * (heads + projection)
    assert found["quantization"]["params"] == (width + 1) * codes
    assert found["cnn_encoder"]["params"] == (config.feature_dim + 1) * width
    whole = found["total"]
    assert whole["flops_full"] > whole["flops_paper"]
    assert whole["params"] == training_step.tree_size(step_of(config).parameters) - width  # mask embedding


def test_an_eager_framework_keeps_less_for_log_mel_and_for_fewer_codes():
    """Nothing of the front end, and of the heads the scores and the codes."""
    rows = module_costs.eager_bytes(SMALL_BEST_RQ, 2, 8_000)
    assert rows[module_costs.LOG_MEL] == 0
    frames, codes = SMALL_BEST_RQ.num_frames(8_000), 2 * 12
    assert rows[module_costs.OTHER] == 2 * frames * (4 * codes + 8 * 2 + 1)  # log-softmax, codes, mask
    assert rows["feature_projection"] == 4 * 2 * frames * SMALL_BEST_RQ.feature_dim


def test_a_round_of_best_rq_has_a_price():
    price = round_price.round_price(
        StepSettings(model="best-rq-tiny", seconds=1.0, batch=2), clients=2, local_steps=3
    )
    assert not price["unpriced"]
    assert price["bytes_up"] == 2 * 4 * 2_384_592


def test_best_rq_by_length():
    """Rows of figures 3 and 4; log-mel spectra keep nothing but their frames."""
    rows = [length_sweep.memory_row("best-rq-tiny", seconds, 1, "fp32") for seconds in (1.0, 3.0)]
    for row in rows:
        assert row["parameters_bytes"] == 4 * 2_384_592
    short, long = (length_sweep.flops_row("best-rq-tiny", seconds, 1) for seconds in (1.0, 3.0))
    assert 2.9 < long["flops_paper"] / short["flops_paper"] < 3.3
    for name in ("autograd_bytes", "residual_bytes"):  # 24 and 74 frames, and what no frame adds to
        one, three = (row[name] - row["parameters_bytes"] for row in rows)
        assert 2.5 < three / one < 3.5


def test_the_bytes_of_a_round_are_those_of_its_codecs():
    coded = round_price.round_price(TINY, clients=2, local_steps=1, up=codec("q2"), down=codec("q8"))
    shapes = training_step.build(TINY).parameters
    assert coded["bytes_up"] == 2 * codec("q2").bytes_of(shapes) < 2 * training_step.tree_bytes(shapes) / 12
    assert coded["bytes_down"] == 2 * codec("q8").bytes_of(shapes)
