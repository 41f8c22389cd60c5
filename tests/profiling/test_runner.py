"""The runner on a toy artifact: a least-squares step with momentum, exported here."""

import ast
import datetime
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest

from profiling import runner

RUNNER = Path(runner.__file__)
RATE = 0.05
PLAIN = """
import jax
import jax.numpy as jnp


def make_step(manifest):
    rate = manifest["learning_rate"]

    def loss_of(weights, bias, waveform, scale):
        return jnp.mean(jnp.square(scale * (waveform @ weights + bias[None]) - 1.0))

    def step(weights, bias, momentum, count, waveform, num_samples, utterance_id, key_data, index):
        scale = 1.0 + 0.1 * (key_data[1] % 3).astype(jnp.float32) + 0.01 * (index % 5).astype(jnp.float32)
        loss, gradients = jax.value_and_grad(loss_of, (0, 1))(weights, bias, waveform, scale)
        momentum = 0.9 * momentum + gradients[0]
        return weights - rate * momentum, bias - rate * gradients[1], momentum, count + 1, loss

    return step
"""


def entry(name, shape, dtype="float32", **draw):
    return {"name": name, "shape": shape, "dtype": dtype, "draw": draw}


STATE = [
    entry("parameters/weights", [16, 3], kind="normal", mean=0.0, std=0.5),
    entry("parameters/bias", [3], kind="uniform", low=-1.0, high=1.0),
    entry("optimizer/momentum", [16, 3], kind="constant", value=0.0),
    entry("optimizer/count", [], "int32", kind="constant", value=0),
]
INPUTS = [
    entry("waveform", [8, 16], kind="normal", mean=0.0, std=1.0),
    entry("num_samples", [8], "int32", kind="constant", value=16),
    entry("utterance_id", [8], "uint32", kind="range"),
    entry("key_data", [2], "uint32", kind="constant", value=0),
    entry("step", [], "int32", kind="constant", value=0),
]
STATE_BYTES = 4 * (16 * 3 + 3 + 16 * 3 + 1)


def toy_step(rate):
    names = {}
    exec(PLAIN, names)
    return names["make_step"]({"learning_rate": rate})


def exported_toy(rate):
    shapes = [jax.ShapeDtypeStruct(tuple(e["shape"]), e["dtype"]) for e in STATE + INPUTS]
    return bytes(jax.export.export(jax.jit(toy_step(rate)), platforms=["cpu"])(*shapes).serialize())


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def write_artifact(folder, *, program, source=PLAIN, **changes):
    """An artifact's folder; `changes` go into its description."""
    folder.mkdir()
    manifest = {
        "format": 1,
        "description": "toy, batch 8 x 1 s, fp32, momentum",
        "settings": {"model": "toy"},
        "config": {},
        "optimizer": {},
        "learning_rate": RATE,
        "exported": {
            "date": datetime.date.today().isoformat(),
            "jax": jax.__version__,
            "jaxlib": jax.__version__,
            "calling_convention_version": jax.export.maximum_supported_calling_convention_version,
        },
        "programs": {"cpu": {"file": "step.cpu.jaxexport", "sha256": sha256(program), "bytes": len(program)}},
        "plain": {"file": "plain_step.py", "sha256": sha256(source.encode())},
        "state": STATE,
        "inputs": INPUTS,
        "audio_seconds": 8.0,
        "flops": {},
        "memory": {"expected_bytes": 1000},
        "probe": None,
    }
    manifest.update(changes)
    (folder / "step.cpu.jaxexport").write_bytes(program)
    (folder / "plain_step.py").write_text(source)
    describe(folder, json.dumps(manifest).encode())
    return folder


def describe(folder, content):
    (folder / "artifact.json").write_bytes(content)
    (folder / "artifact.json.sha256").write_text(sha256(content) + "\n")


@pytest.fixture(scope="module")
def program():
    return exported_toy(RATE)


@pytest.fixture(scope="module")
def probe():
    """Right answers, from the step itself and never from the exported program."""
    step = jax.jit(toy_step(RATE))

    def call(state, inputs):
        *state, loss = step(*state, *inputs)
        return state, loss

    values = runner.probe_values(call, {"state": STATE, "inputs": INPUTS}, 3, 3)
    return {"seed": 3, **values, "relative_tolerance": 1e-4}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory, program, probe):
    return write_artifact(tmp_path_factory.mktemp("runner") / "toy", program=program, probe=probe)


def run(folder, out, *arguments):
    command = [sys.executable, str(RUNNER), str(folder), "--out", str(out), "--seconds", "0.3", *arguments]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def refused(capsys, folder, *arguments):
    """The one line of a refusal that needs no jax."""
    assert runner.main([str(folder), "--out", str(Path(folder).parent / "timings.json"), *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("runner: error: ")
    assert said.count("\n") == 1
    return said


# ---- Draws and the probe ----


def test_draws_are_those_of_a_seed_and_a_position():
    normal = entry("a", [2, 3], kind="normal", mean=1.0, std=2.0)
    expected = np.random.RandomState([5, 7]).normal(1.0, 2.0, (2, 3)).astype(np.float32)
    np.testing.assert_array_equal(runner.draw(normal, 5, 7), expected)
    assert runner.draw(normal, 5, 7).dtype == np.float32
    assert not np.array_equal(runner.draw(normal, 5, 8), expected)
    np.testing.assert_allclose(runner.draw(normal, 0, 0)[0], [0.2748194, 0.1680505, 2.9097300], rtol=1e-6)
    uniform = runner.draw(entry("a", [1000], "float16", kind="uniform", low=2.0, high=3.0), 0, 0)
    assert uniform.dtype == np.float16
    assert 2.0 <= uniform.min() < 2.01 < 2.99 < uniform.max() <= 3.0
    whole = runner.draw(entry("a", [2, 3], "uint32", kind="range"), 0, 0)
    np.testing.assert_array_equal(whole, [[0, 1, 2], [0, 1, 2]])
    assert runner.draw(entry("a", [], "int32", kind="constant", value=4), 0, 0) == 4
    with pytest.raises(ValueError, match="unknown draw"):
        runner.draw(entry("a", [], kind="zipf"), 0, 0)


def test_the_probe_gives_each_step_its_key_and_measures_the_first_change():
    seen = []

    def call(state, inputs):
        seen.append((inputs[3].tolist(), int(inputs[4]), float(inputs[0][0, 0])))
        return [leaf + leaf.dtype.type(2) for leaf in state], np.float32(len(seen))

    found = runner.probe_values(call, {"state": STATE, "inputs": INPUTS}, 9, 3)
    waveform = float(runner.draw(INPUTS[0], 9, len(STATE))[0, 0])
    assert seen == [([9, step], step, waveform) for step in range(3)]
    assert found["losses"] == [1.0, 2.0, 3.0]
    # 51 parameters moved by 2; the optimizer's count is no float and does not count.
    expected = {"parameters": math.sqrt(51 * 4), "optimizer": math.sqrt(48 * 4)}
    assert found["change_norms"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("losses", "norms", "wrong"),
    [
        ([2.0, 3.0], {"parameters": 1.0}, None),
        ([2.0001, 3.0], {"parameters": 1.0009}, None),
        ([2.0, 3.0004], {"parameters": 1.0}, "loss of step 1"),
        ([2.0, 3.0], {"parameters": 1.0015}, "change of parameters"),
        ([math.nan, 3.0], {"parameters": 1.0}, "loss of step 0 is nan"),
        ([2.0, math.inf], {"parameters": 1.0}, "loss of step 1"),
        ([2.0, 3.0], {"parameters": math.nan}, "change of parameters"),
        ([2.0, 3.0], {}, "change of parameters"),
    ],
)
def test_the_first_value_out_of_tolerance_is_named(losses, norms, wrong):
    expected = {"losses": [2.0, 3.0], "change_norms": {"parameters": 1.0}}
    found = runner.first_wrong(expected, {"losses": losses, "change_norms": norms}, 1e-4)
    assert found is None if wrong is None else wrong in (found or "")


@pytest.mark.parametrize("expected", [math.nan, math.inf])
def test_nothing_passes_for_an_expected_value_that_is_not_finite(expected):
    assert runner.first_wrong({"losses": [expected], "change_norms": {}}, {"losses": [1.0]}, 1e-4)


# ---- Measuring ----


def test_an_artifact_is_timed(tmp_path, artifact):
    out = tmp_path / "timings.json"
    done = run(artifact, out, "--device", "desk", "--min-steps", "7")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(out.read_text())
    assert (found["status"], found["path"], found["platform"]) == ("timed", "export", "cpu")
    assert (found["device"], found["notes"].count("the results were not checked")) == ("desk", 0)
    samples = found["step_seconds"]
    assert found["steps"] == len(samples) >= 7
    assert min(samples) > 0
    assert sum(samples) >= 0.3
    for name in ("deserialise_seconds", "compile_seconds", "first_call_seconds", "idle_bytes", "peak_bytes"):
        assert 0 < found[name] < math.inf, name
    assert min(samples) <= found["p10_seconds"] <= found["median_seconds"] <= found["p90_seconds"]
    assert found["audio_seconds_per_second"] == pytest.approx(8.0 / found["median_seconds"])
    assert found["lifetime_peak_bytes"] >= found["idle_bytes"]
    # The state is donated: nothing else would tell on so small a program.
    assert found["program_bytes"]["aliased"] == STATE_BYTES
    assert found["probe"]["passed"] is True
    assert found["artifact"]["checksum"] == (artifact / "artifact.json.sha256").read_text().strip()
    assert found["versions"]["jax"] == jax.__version__
    assert found["environment"]["XLA_FLAGS"] == os.environ["XLA_FLAGS"]
    assert (found["power"]["joules_per_step"] is None) == any("no energy" in note for note in found["notes"])
    assert "compiling" in done.stdout
    assert "s median of" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["timings.json"]


def test_the_plain_path_gives_the_same_probe(tmp_path, artifact, probe):
    done = run(artifact, tmp_path / "timings.json", "--path", "plain", "--platform", "cpu", "--seconds", "0")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((tmp_path / "timings.json").read_text())
    assert (found["path"], found["deserialise_seconds"], found["steps"]) == ("plain", None, 5)
    assert found["probe"]["passed"] is True
    assert found["probe"]["found"]["losses"] == pytest.approx(probe["losses"], rel=1e-5)
    assert found["program_bytes"]["aliased"] == STATE_BYTES


@pytest.mark.parametrize("fault", ["another learning rate", "another expected loss"])
def test_a_wrong_result_is_no_timing(tmp_path, program, probe, fault):
    wrong = "the change of parameters"
    if fault == "another expected loss":
        wrong = "the loss of step 2"
        probe = {**probe, "losses": [*probe["losses"][:2], probe["losses"][2] * 1.001]}
        folder = write_artifact(tmp_path / "toy", program=program, probe=probe)
    else:
        # Its losses come into the tolerance too when only the first step is looked at.
        probe = {**probe, "losses": probe["losses"][:1]}
        folder = write_artifact(tmp_path / "toy", program=exported_toy(2 * RATE), probe=probe)
    done = run(folder, tmp_path / "timings.json")
    assert done.returncode == 1
    assert done.stderr.startswith(f"runner: error: wrong result: {wrong} is ")
    found = json.loads((tmp_path / "timings.json").read_text())
    assert (found["status"], found["probe"]["passed"]) == ("wrong_result", False)
    assert found["step_seconds"] is found["median_seconds"] is None


def test_a_loss_that_becomes_nan_is_no_timing(tmp_path, program):
    source = PLAIN.replace("count + 1, loss", "count + 1, jnp.where(index > 3, jnp.nan, loss)")
    folder = write_artifact(tmp_path / "toy", program=program, source=source)
    done = run(folder, tmp_path / "timings.json", "--path", "plain")
    assert (done.returncode, done.stderr) == (1, "runner: error: wrong result: the loss of step 4 is nan\n")
    found = json.loads((tmp_path / "timings.json").read_text())
    assert (found["status"], found["median_seconds"], found["probe"]["passed"]) == (
        "wrong_result",
        None,
        None,
    )


OUT_OF_MEMORY = {
    "python": (
        ("def make_step(manifest):", "def make_step(manifest):\n    raise MemoryError"),
        "MemoryError",
    ),
    "kernel": (
        ("def make_step(manifest):", "def make_step(manifest):\n    import os\n    os.kill(os.getpid(), 9)"),
        "killed by SIGKILL",
    ),
    # More than any machine has: XLA asks for it when the step runs.
    "xla": (
        ("count + 1, loss", "count + 1, loss + jnp.sort(jnp.arange(2.0**44) * loss)[7]"),
        "RESOURCE_EXHAUSTED",
    ),
}


@pytest.mark.parametrize("by", OUT_OF_MEMORY)
def test_want_of_memory_is_a_result(tmp_path, program, probe, by):
    (old, new), reason = OUT_OF_MEMORY[by]
    assert old in PLAIN
    folder = write_artifact(tmp_path / "toy", program=program, source=PLAIN.replace(old, new), probe=probe)
    done = run(folder, tmp_path / "timings.json", "--path", "plain")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((tmp_path / "timings.json").read_text())
    assert (found["status"], found["median_seconds"]) == ("out_of_memory", None)
    assert found["notes"][-1].startswith("out of memory while ")
    assert reason in found["notes"][-1]
    assert found["notes"][-1] in done.stdout
    assert found["versions"]["jax"] == jax.__version__
    assert found["lifetime_peak_bytes"] > 0


def test_a_fault_after_measuring_takes_nothing_away(tmp_path, program):
    source = PLAIN + "\nimport atexit, os\natexit.register(os.abort)\n"
    folder = write_artifact(tmp_path / "toy", program=program, source=source)
    done = run(folder, tmp_path / "timings.json", "--path", "plain", "--seconds", "0")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((tmp_path / "timings.json").read_text())
    assert (found["status"], found["notes"][-1]) == (
        "timed",
        "after measuring, the process ended with status -6",
    )


def test_another_failure_leaves_older_timings_alone(tmp_path, program):
    source = PLAIN.replace("rate = manifest", "rate = 1 / 0 * manifest")
    folder = write_artifact(tmp_path / "toy", program=program, source=source)
    out = tmp_path / "timings.json"
    out.write_text("older")
    done = run(folder, out, "--path", "plain")
    assert done.returncode == 1
    assert done.stderr.startswith("runner: error: failed while reading the step")
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" in (tmp_path / "timings.json.log").read_text()
    assert out.read_text() == "older"


# ---- Refusals ----


@pytest.mark.parametrize("name", ["step.cpu.jaxexport", "plain_step.py", "artifact.json"])
def test_one_flipped_byte_is_refused(tmp_path, capsys, artifact, name):
    folder = shutil.copytree(artifact, tmp_path / "toy")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert f"{name} is damaged" in refused(capsys, folder)


def test_a_description_that_is_cut_short_is_refused(tmp_path, capsys, artifact):
    folder = shutil.copytree(artifact, tmp_path / "toy")
    content = (folder / "artifact.json").read_bytes()[:-20]
    (folder / "artifact.json").write_bytes(content)
    assert "artifact.json is damaged" in refused(capsys, folder)
    describe(folder, content)
    assert "is not the description of an artifact" in refused(capsys, folder)


def test_what_is_missing_or_of_another_format_is_refused(tmp_path, capsys, artifact):
    assert "no such folder" in refused(capsys, tmp_path / "toy")
    folder = shutil.copytree(artifact, tmp_path / "toy")
    manifest = json.loads((folder / "artifact.json").read_text())
    describe(folder, json.dumps({**manifest, "format": 2}).encode())
    assert "has format 2, this runner reads 1" in refused(capsys, folder)
    (folder / "artifact.json.sha256").unlink()
    assert "artifact.json.sha256: No such file" in refused(capsys, folder)
    assert "cannot write" in refused(capsys, artifact, "--out", str(tmp_path / "none" / "timings.json"))


@pytest.mark.parametrize(
    ("changes", "arguments", "reason"),
    [
        ({}, ["--platform", "cuda"], "jax finds no device for --platform cuda: "),
        ({"programs": {"cuda": {"file": "absent", "sha256": ""}}}, [], "no program for cpu, only for cuda"),
        ({"programs": {"cpu": {"file": "absent", "sha256": ""}}}, [], "absent: No such file"),
        ({"plain": None}, ["--path", "plain"], "the artifact has no plain step"),
    ],
)
def test_what_the_child_finds_missing_is_refused(tmp_path, program, changes, arguments, reason):
    folder = write_artifact(tmp_path / "toy", program=program, **changes)
    done = run(folder, tmp_path / "timings.json", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("runner: error: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "timings.json").exists()


def test_missing_packages_are_named(tmp_path, monkeypatch):
    # -I -S: no site-packages, so no numpy.
    command = [sys.executable, "-I", "-S", str(RUNNER), "toy", "--out", "timings.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr == "runner: error: numpy is not installed: python -m pip install numpy\n"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(runner.Refusal, match="pip install flatbuffers"):
        runner._need("flatbuffers")


TODAY = datetime.date(2026, 11, 24)


@pytest.mark.parametrize(
    ("version", "days", "supported", "reason"),
    [
        ("0.10.2", 0, (9, 10), None),
        ("0.10.2", 4000, (9, 10), None),
        ("0.10.2.dev20261101+abc", 4000, (9, 10), None),
        ("0.11.0", 183, (9, 10), None),
        ("0.11.0", 184, (9, 10), "6 months"),
        ("1.0", 184, (9, 10), "6 months"),
        ("0.11.0", -30, (9, 10), None),
        ("0.10.1", 0, (9, 10), "3 weeks"),
        ("0.9.15", 0, (9, 10), "3 weeks"),
        ("0.4.38", 0, (9, 10), "3 weeks"),
        ("0.10.2", 0, (9, 9), "calling convention 10, the jax here knows 9 to 9"),
        ("0.11.0", 0, (11, 12), "calling convention 10, the jax here knows 11 to 12"),
    ],
)
def test_the_window_of_versions(version, days, supported, reason):
    exported = {"date": "2026-11-24", "jax": "0.10.2", "calling_convention_version": 10}
    later = TODAY + datetime.timedelta(days)
    found = runner.window_refusal({"exported": exported}, version, later, supported)
    assert found is None if reason is None else reason in (found or "")


def test_outside_the_window_the_plain_path_is_taken_unless_the_export_is_asked_for(tmp_path, program, probe):
    exported = {"date": "2020-01-01", "jax": "99.0", "jaxlib": "99.0", "calling_convention_version": 10}
    folder = write_artifact(tmp_path / "toy", program=program, probe=probe, exported=exported)
    out, quick = tmp_path / "timings.json", ["--seconds", "0"]
    done = run(folder, out, *quick)
    assert (done.returncode, json.loads(out.read_text())["path"]) == (0, "plain")
    assert "at most 3 weeks older (--ignore-window tries it): the plain path" in done.stdout
    done = run(folder, out, "--path", "export", *quick)
    assert done.returncode == 2
    assert "at most 3 weeks older (--ignore-window tries it); --path plain" in done.stderr
    done = run(folder, out, "--ignore-window", *quick)
    assert (done.returncode, json.loads(out.read_text())["path"]) == (0, "export")


# ---- The board ----


def plant(root, **files):
    """Files below `root`, each "folder/name": content; None is a folder, which nobody can read as a file."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_text(f"{content}\n")


def ina3221(root, chip, rails):
    """JetPack 5 and later; reached by links, as in a real tree."""
    device = root / f"sys/devices/i2c/{chip}"
    for number, (name, millivolts, milliamperes) in enumerate(rails, 1):
        files = {
            f"in{number}_label": name,
            f"in{number}_input": millivolts,
            f"curr{number}_input": milliamperes,
        }
        plant(device / "hwmon/hwmon3", **files)
    plant(device / "hwmon/hwmon3", in7_label="sum of shunt voltages", in7_input=1)
    driver = root / "sys/bus/i2c/drivers/ina3221"
    driver.mkdir(parents=True, exist_ok=True)
    (driver / chip).symlink_to(device)
    return device / "hwmon/hwmon3"


def sampled(root, times=3, between=lambda: None, platform="cuda"):
    sampler = runner.PowerSampler(runner.find_rails(root, platform))
    for _ in range(times):
        sampler.sample()
        between()
    return sampler.summary(2.0)


def test_rails_of_an_orin_nx(tmp_path):
    ina3221(
        tmp_path, "1-0040", [("VDD_IN", 5000, 2000), ("VDD_CPU_GPU_CV", 5000, 800), ("VDD_SOC", 5000, 400)]
    )
    power, notes = sampled(tmp_path)
    assert power["total_of"] == ["VDD_IN"]
    assert power["mean_watts"] == pytest.approx(10.0)
    assert power["joules_per_step"] == pytest.approx(20.0)
    assert power["rails"]["VDD_SOC"] == {"mean_watts": pytest.approx(2.0), "samples": 3}
    assert set(power["rails"]) == {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}
    assert notes == []


def test_rails_of_an_agx_orin_are_added_but_for_what_is_counted_already(tmp_path):
    ina3221(
        tmp_path,
        "1-0040",
        [("VDD_GPU_SOC", 12000, 1000), ("VDD_CPU_CV", 12000, 500), ("VIN_SYS_5V0", 5000, 800)],
    )
    ina3221(tmp_path, "1-0041", [("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 200), ("NC", 0, 0)])
    power, notes = sampled(tmp_path)
    assert power["mean_watts"] == pytest.approx(12 + 6 + 4)
    assert "VDDQ_VDD2_1V8AO" in power["rails"]
    assert "NC" not in power["rails"]
    assert notes == ["no rail feeds the whole board: power is that of VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"]


def test_rails_of_thor_have_its_input(tmp_path):
    ina3221(tmp_path, "2-0040", [("VDD_GPU", 12000, 1000), ("VDD_CPU_SOC_MSS", 12000, 500)])
    plant(tmp_path / "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon5", power1_input=40_000_000)
    power, notes = sampled(tmp_path)
    assert (power["total_of"], power["mean_watts"], notes) == (["VIN"], pytest.approx(40.0), [])


def test_rails_of_jetpack_4(tmp_path):
    chip = tmp_path / "sys/bus/i2c/drivers/ina3221x/7-0040/iio:device0"
    plant(chip, rail_name_0="VDD_IN", in_power0_input=4321, rail_name_1="VDD_SOC", in_power1_input=1000)
    power, _ = sampled(tmp_path)
    assert power["mean_watts"] == pytest.approx(4.321)
    assert power["rails"]["VDD_SOC"]["mean_watts"] == pytest.approx(1.0)


@pytest.mark.parametrize("fault", ["missing", "a folder", "words"])
def test_a_rail_that_goes_away_is_told_and_what_was_read_counts(tmp_path, fault):
    chip = ina3221(tmp_path, "1-0040", [("VDD_IN", 5000, 2000), ("VDD_SOC", 5000, 400)])

    def spoil():
        (chip / "curr1_input").unlink(missing_ok=True) if (chip / "curr1_input").is_file() else None
        if fault != "missing" and not (chip / "curr1_input").exists():
            plant(chip, curr1_input=None if fault == "a folder" else "n/a")

    power, notes = sampled(tmp_path, between=spoil)
    assert power["rails"]["VDD_IN"] == {"mean_watts": pytest.approx(10.0), "samples": 1}
    assert power["rails"]["VDD_SOC"]["samples"] == 3
    assert power["mean_watts"] == pytest.approx(10.0)
    assert len(notes) == 1
    assert notes[0].startswith("power rail VDD_IN could not always be read: ")


def test_a_board_input_that_cannot_be_read_is_not_replaced_by_its_parts(tmp_path):
    chip = ina3221(tmp_path, "1-0040", [("VDD_IN", 5000, 2000), ("VDD_SOC", 5000, 400)])
    (chip / "curr1_input").unlink()
    power, notes = sampled(tmp_path)
    assert power["mean_watts"] is power["joules_per_step"] is None
    assert notes[-1] == "VDD_IN gave no power: no energy"


def test_intel_counters_become_watts_and_may_begin_anew(tmp_path, monkeypatch):
    zones = tmp_path / "sys/class/powercap"
    plant(zones / "intel-rapl:0", name="package-0", energy_uj=1_000_000)
    plant(zones / "intel-rapl:0:0", name="core", energy_uj=5)
    clock, energy = iter(range(100)), iter([4_000_000, 1_000_000, 6_000_000, 6_000_000])
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    tick = lambda: plant(zones / "intel-rapl:0", energy_uj=next(energy))  # noqa: E731
    power, _ = sampled(tmp_path, times=4, between=tick, platform="cpu")
    # 3 W, then the counter begins anew, then 5 W.
    assert power["rails"] == {"intel-rapl:0 package-0": {"mean_watts": pytest.approx(4.0), "samples": 2}}
    assert runner.find_rails(tmp_path, "cuda") == {}


def test_a_machine_without_rails_says_so(tmp_path):
    power, notes = sampled(tmp_path)
    assert power == {"rails": {}, "total_of": [], "mean_watts": None, "joules_per_step": None}
    assert notes == ["no power rails can be read here: no energy"]


def test_the_sampler_reads_while_something_else_runs(tmp_path):
    ina3221(tmp_path, "1-0040", [("VDD_IN", 5000, 2000)])
    sampler = runner.PowerSampler(runner.find_rails(tmp_path))
    sampler.start()
    sampler.stop()
    assert not sampler.is_alive()
    assert sampler.summary(1.0)[0]["mean_watts"] == pytest.approx(10.0)


ARM_CPU = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n"


def test_a_board_describes_itself(tmp_path):
    plant(tmp_path / "proc/device-tree", model="NVIDIA Jetson AGX Orin Developer Kit\0")
    plant(tmp_path / "etc", nv_tegra_release="# R36 (release), REVISION: 4.3\nmore")
    plant(tmp_path / "proc", meminfo="MemTotal:       64349684 kB\nMemFree: 1 kB", cpuinfo=ARM_CPU)
    cores = tmp_path / "sys/devices/system/cpu"
    plant(cores / "cpu0/cpufreq", scaling_cur_freq=2201600, scaling_governor="schedutil")
    plant(cores / "cpu1/cpufreq", scaling_cur_freq="n/a", scaling_governor="schedutil")
    plant(tmp_path / "sys/class/devfreq/17000000.gpu", cur_freq=1300500000)
    plant(tmp_path / "sys/class/thermal/thermal_zone0", type="cpu-thermal", temp=49250)
    plant(tmp_path / "sys/class/thermal/thermal_zone1", type="gpu-thermal", temp=None)
    board, now = runner.describe_board(tmp_path), runner.board_now(tmp_path)
    assert board["model"] == "NVIDIA Jetson AGX Orin Developer Kit"
    assert board["memory_bytes"] == 64349684 * 1024
    assert (board["l4t"], board["unified_memory"]) == ("# R36 (release), REVISION: 4.3", True)
    assert (board["governors"], board["cpu"]) == (["schedutil"], "implementer 0x41, part 0xd42")
    assert now["clocks_hz"] == {"cpu0": 2201600e3, "cpu1": None, "17000000.gpu": 1300500000}
    assert now["temperatures_celsius"] == {
        "thermal_zone0 cpu-thermal": pytest.approx(49.25),
        "thermal_zone1 gpu-thermal": None,
    }
    nothing = runner.describe_board(tmp_path / "none")
    assert nothing["model"] is nothing["memory_bytes"] is nothing["l4t"] is nothing["cpu"] is None
    plant(tmp_path / "pc/proc", cpuinfo="model name\t: Some CPU @ 2 GHz")
    assert runner.describe_board(tmp_path / "pc")["cpu"] == "Some CPU @ 2 GHz"


# ---- One file for old boards ----


def test_the_runner_is_python_3_8_and_imports_only_numpy_and_the_standard_library():
    tree = ast.parse(RUNNER.read_text(), feature_version=(3, 8))
    everywhere = {
        id(node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for node in ast.walk(node)
    }
    early, late = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            (late if id(node) in everywhere else early).update(name.split(".")[0] for name in names)
    assert early - set(sys.stdlib_module_names) == {"numpy"}
    assert late - set(sys.stdlib_module_names) == {"jax"}
