"""The share of the device's rate: operations of the traced step over seconds and the peak rate."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.costs import rate_share
from experiments.costs.rate_share import PeakRate, RateShare, peak_rate
from tests.fed.toy import toy_objective


def toy_batch(examples):
    return {"x": np.zeros((examples, 5)), "y": np.zeros(examples), "weight": np.zeros(examples)}


def toy_products(examples):
    """Products with w and v forward; backward one for each parameter, and one for the hidden layer."""
    return 2 * examples * (2 * 5 * 8 + 2 * 8) + 2 * examples * 8


def test_the_share_is_operations_over_seconds_and_rate():
    made = []

    def objective():
        made.append(1)
        return toy_objective()

    share = RateShare(objective, PeakRate(1e4, "toy"))
    share.add(toy_batch(4), 10)
    share.add(toy_batch(4), 5)
    share.add(toy_batch(8))
    done = 15 * toy_products(4) + toy_products(8)
    assert share.columns(2.0) == {"device_rate_share": pytest.approx(done / 2.0 / 1e4)}
    assert len(made) == 2  # each shape is traced once
    assert share.columns(2.0) == {"device_rate_share": 0.0}
    assert share.note is None


def test_nothing_is_traced_where_the_rate_is_unknown():
    share = RateShare(lambda: pytest.fail("traced"), PeakRate(None, "X9000"))
    share.add(toy_batch(4), 10)
    assert share.columns(2.0) == {}
    assert share.note is not None
    assert "no peak rate is known for X9000" in share.note
    assert RateShare(toy_objective, PeakRate(None, None)).note is None  # on a CPU it is no news


@pytest.mark.parametrize(
    ("platform", "name", "precision", "flops"),
    [
        ("gpu", "NVIDIA H200", "bf16", 2 * 989e12),
        ("gpu", "NVIDIA H200", "fp32", 2 * 67e12),
        ("gpu", "NVIDIA X9000", "bf16", None),
        ("cpu", "Raspberry Pi 5 Model B Rev 1.0", "fp32", 4 * 2.4e9 * 16),  # however many virtual devices
        ("cpu", "Raspberry Pi 5 Model B Rev 1.0", "bf16", None),
        ("cpu", "NVIDIA Jetson AGX Orin Developer Kit", "fp32", None),  # the known rate is its GPU's
        ("cpu", None, "fp32", None),
    ],
)
def test_the_peak_rate_is_that_of_the_part_that_trains(platform, name, precision, flops, monkeypatch):
    device = SimpleNamespace(platform=platform, device_kind=name if platform == "gpu" else "cpu")
    monkeypatch.setattr(rate_share.jax, "devices", lambda: [device])
    board = {"model": name if platform == "cpu" else None}
    monkeypatch.setattr(rate_share.runner, "describe_board", lambda: board)
    assert peak_rate(precision, devices=2).flops == flops


def test_the_count_of_a_model_is_that_of_its_plain_step():
    def objective():
        def value_and_grad(parameters, state, batch, key, step):
            return jax.grad(lambda p: jnp.sum(jnp.tanh(batch @ p)))(parameters), state, {}

        return SimpleNamespace(init=lambda key: (jnp.zeros((3, 7)), {}), value_and_grad=value_and_grad)

    assert rate_share.step_products(objective, jax.ShapeDtypeStruct((5, 3), jnp.float32)) == 2 * 2 * 5 * 3 * 7
