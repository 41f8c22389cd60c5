import dataclasses

import numpy as np
import pytest

from profiling import step_time
from profiling.devices import DEVICES
from profiling.step_time import Cell, Efficiencies, StepTimeModel, Work

TRUE = Efficiencies(accelerator_share=0.6, processor_share=0.2, traffic=0.8, fixed_seconds=0.05)
FACTORS = {"a40": 1.2, "xavier-nx": 0.9, "xavier-agx": 1.05, "rpi-4": 0.8, "macbook-2019": 1.1}
SIZES = {
    "one": Work(2e11, 3e10),
    "four": Work(9e11, 7e10),
    "large": Work(6e11, 9e10),
    "heavy": Work(3e12, 2e10),
}


def made_cells(noise=0.0):
    """Steps as the model itself would take them."""
    rng = np.random.default_rng(3)
    cells = []
    for name, factor in FACTORS.items():
        device = DEVICES[name]
        for precision in ("fp32", "fp16") if "fp16" in device.peak_flops else ("fp32",):
            for size, work in SIZES.items():
                plain = step_time.uncalibrated_seconds(TRUE, device, precision, work)
                assert plain is not None
                seconds = factor * plain * float(np.exp(noise * rng.standard_normal()))
                cells.append(Cell(f"{size}, {precision}", device, precision, work, seconds))
    return cells


def test_a_step_is_arithmetic_and_traffic_and_a_fixed_cost():
    device = dataclasses.replace(DEVICES["a40"], bytes_per_second=1e11, peak_flops={"fp32": 1e12})
    efficiencies = Efficiencies(0.5, 0.1, 2.0, 0.25)
    work = Work(flops=1e12, moved_bytes=1e11)
    # 1e12 / (0.5 x 1e12) + 2 x 1e11 / 1e11 + 0.25
    assert step_time.uncalibrated_seconds(efficiencies, device, "fp32", work) == pytest.approx(4.25)
    on_cpu = dataclasses.replace(device, processor="cpu")
    assert step_time.uncalibrated_seconds(efficiencies, on_cpu, "fp32", work) == pytest.approx(12.0)


def test_a_fit_finds_what_made_the_times():
    cells = made_cells()
    model = step_time.fit(cells)
    predicted = [model.seconds(c.device, c.precision, c.work) for c in cells]
    np.testing.assert_allclose(predicted, [c.seconds for c in cells], rtol=0.03)


def test_a_device_that_was_left_out_is_predicted_from_one_cell():
    held = step_time.leave_one_device_out(made_cells(), "one, fp32")
    assert len(held) == len(made_cells()) - len(FACTORS)
    assert np.abs(step_time.errors(held)).max() < 0.1
    noisy = step_time.leave_one_device_out(made_cells(noise=0.1), "one, fp32")
    assert 0.01 < np.median(np.abs(step_time.errors(noisy))) < 0.25


def test_what_is_left_out_is_not_looked_at():
    cells = made_cells()
    changed = [
        c if c.device.title != "NVIDIA A40" or c.name == "one, fp32" else c._replace(seconds=9 * c.seconds)
        for c in cells
    ]
    before, after = (step_time.leave_one_device_out(rows, "one, fp32") for rows in (cells, changed))
    for (cell, seconds), (_, seconds_after) in zip(before, after, strict=True):
        if cell.device.title == "NVIDIA A40":
            assert seconds == pytest.approx(seconds_after)


def test_one_measurement_calibrates_a_device():
    model = StepTimeModel(TRUE, {})
    cell = Cell("x", DEVICES["orin-nx"], "bf16", SIZES["four"], 3.0)
    assert model.calibrated(cell).seconds(cell.device, "bf16", cell.work) == pytest.approx(3.0)
    assert model.factors == {}


def test_unknown_rates_give_no_seconds():
    model = StepTimeModel(TRUE, {})
    assert model.seconds(DEVICES["a15"], "fp32", SIZES["one"]) is None
    assert model.seconds(DEVICES["rpi-4"], "fp16", SIZES["one"]) is None
    unknown = Cell("x", DEVICES["a15"], "fp32", SIZES["one"], 1.0)
    with pytest.raises(ValueError, match="A15"):
        model.calibrated(unknown)
    with pytest.raises(ValueError, match="A15"):
        step_time.fit([unknown])
    with pytest.raises(ValueError, match="no measured"):
        step_time.fit([])
