import jax
import pytest

from experiments.costs import length_sweep
from experiments.costs.step import module_costs, round_price, training_step
from experiments.costs.step.training_step import StepSettings
from profiling import flops, residuals
from profiling.flops import count
from profiling.xla import operations
from tests.configs import SMALL, VARIANTS

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


@pytest.mark.parametrize(
    ("name", "rematerialise"),
    [
        ("group-norm", True),
        ("layer-norm", False),
        pytest.param("group-norm", False, marks=pytest.mark.slow),
        pytest.param("layer-norm", True, marks=pytest.mark.slow),
    ],
)
def test_layers_sum_to_the_whole_to_the_last_operation(name, rematerialise):
    config = VARIANTS[name].replace(
        rematerialise_cnn=rematerialise, rematerialise_layers=rematerialise, dropout=0.1
    )
    step = step_of(config)
    costs = module_costs.step_costs(config, step)
    report = flops.count(step.function, *step.arguments)
    assert costs.total == report.total
    assert not costs.unpriced
    kept = residuals.residuals(step.loss, step.parameters, *step.arguments[1:])
    assert sum(costs.residual_bytes.values()) == kept.activations
    assert sum(costs.parameter_counts.values()) == training_step.tree_size(step.parameters)
    # Every layer has operations of its own, both ways.
    for layer in module_costs.layer_names(config):
        if layer not in (module_costs.OTHER, "optimizer"):
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
