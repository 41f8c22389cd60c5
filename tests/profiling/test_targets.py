import dataclasses
import json
import subprocess
import sys

import pytest

from profiling import targets
from profiling.devices import DEVICES
from w2v_jax import platforms

# Compiling for elsewhere must be decided before jax starts: a process of its own.
COMPILE = """
import json, sys
from profiling import targets
targets.prepare_environment()
from experiments.costs.devices.plans import plan_of
from experiments.costs.step.training_step import StepSettings
target, model = sys.argv[1:]
rows = {}
for method in ("plain", "remat"):
    settings = StepSettings(model=model, batch=4, seconds=5.5, method=method, optimizer="sgd")
    rows[method] = plan_of(settings, target)
print(json.dumps(rows))
"""


def test_every_target_is_described_by_its_own_figures():
    for name in targets.TARGETS:
        device = DEVICES[name]
        assert device.memory_bytes > 0
        assert device.source
        if device.cuda:
            text = targets.describe(name)
            assert f"device_memory_size: {device.memory_bytes}" in text
            assert f"core_count: {device.cuda.multiprocessors}" in text
            # Cores x clock x 2 gives the rate of the data sheet.
            cores = device.cuda.multiprocessors * device.cuda.cores_per_multiprocessor
            assert 2e9 * cores * device.cuda.clock_ghz == pytest.approx(device.peak_flops["fp32"], rel=0.02)


def test_unknown_rates_stay_unknown():
    assert DEVICES["tpu-v5e"].ridge("fp32") is None
    assert DEVICES["a40"].ridge("fp32") == pytest.approx(37.4e12 / 696e9)
    assert "a40" not in targets.TARGETS


def test_a_missing_compiler_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(targets, "_installed", lambda module: False)
    assert "pip install 'w2v-jax[cuda-target]'" in (targets.missing("orin-nx") or "")
    assert "pip install 'w2v-jax[tpu-target]'" in (targets.missing("tpu-v5e") or "")
    with pytest.raises(targets.TargetError, match="needs"):
        targets.lower_for("orin-nx", lambda x: x, ())


def test_programs_take_the_form_of_the_platform_that_they_are_lowered_for():
    import jax
    import jax.numpy as jnp

    from w2v_jax.model.convolutions import strided_convolution

    def gradient(x, kernel):
        return jax.grad(lambda x: strided_convolution(x, kernel, 2, "lax", "float32").sum())(x)

    x, kernel = jnp.ones((1, 9, 2)), jnp.ones((3, 2, 4))

    def primitives():
        return str(jax.make_jaxpr(lambda x, kernel: gradient(x, kernel))(x, kernel))

    here = primitives()
    assert platforms.lowered_for() == "cpu"
    with platforms.lowering_for("gpu"):
        assert platforms.lowered_for() == "gpu"
        there = primitives()
    assert platforms.lowered_for() == "cpu"
    assert "custom_vjp" in here or "dot_general" in here
    assert "dot_general" not in there


@pytest.mark.targets
@pytest.mark.parametrize(("target", "model"), [("orin-nx", "tiny"), ("xavier-agx", "base")])
def test_a_step_compiles_for_a_board_that_is_not_here(target, model):
    if targets.missing(target):
        pytest.skip(str(targets.missing(target)))
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, target, model], capture_output=True, text=True, check=True
    )
    rows = json.loads(done.stdout.splitlines()[-1])
    for plan in rows.values():
        assert plan["total"] > plan["arguments"] > 0
    if model == "base":
        # Computing each layer again takes less than keeping it, at the paper's batch.
        assert rows["remat"]["temporaries"] < 0.5 * rows["plain"]["temporaries"]


def test_devices_are_whole_records():
    for device in DEVICES.values():
        values = dataclasses.asdict(device)
        assert device.source
        assert values["bytes_per_second"] is None or values["bytes_per_second"] > 1e9
        assert all(rate > 1e10 for rate in device.peak_flops.values())
