"""A step that was exported is the step: through the runner, in a process of its own."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cli import main as cli
from experiments.costs import export
from experiments.costs.devices.timings import read_timings
from experiments.costs.step import training_step
from experiments.costs.step.training_step import StepSettings
from experiments.process.files import read_json, write_json
from profiling import runner
from tests.paths import ROOT

# Where the runner has to do with less: .venv-board and .venv-board-old, made by make test-boards.
BOARD, OLD = (os.environ.get(name) for name in ("W2V_JAX_BOARD_PYTHON", "W2V_JAX_OLD_PYTHON"))


def run_artifact(folder: Path, out: Path, *argv: str, python: str = sys.executable, **environment: str):
    """Run an artifact's own runner on CPU; the finished process."""
    return subprocess.run(
        [python, str(folder / "runner.py"), str(folder), "--out", str(out), "--platform", "cpu", *argv],
        capture_output=True,
        text=True,
        check=False,
        cwd=out.parent,
        env={**os.environ, "PYTHONPATH": "", **environment},
    )


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """A step of tiny, exported through the command."""
    folder = tmp_path_factory.mktemp("export") / "tiny"
    argv = ["--model", "tiny", "--batch", "2", "--seconds", "0.5", "--optimizer", "sgd", "--out", str(folder)]
    assert cli.main(["export", *argv]) == 0
    return folder


@pytest.mark.slow
def test_the_artifact_gives_the_direct_steps_numbers(artifact, tmp_path):
    done = run_artifact(artifact, tmp_path / "t.json", "--seconds", "0.2")
    assert done.returncode == 0, done.stderr
    record = read_json(tmp_path / "t.json")
    assert record["status"] == "timed"
    assert record["path"] == "export"
    assert all(0 < seconds < 60 for seconds in record["step_seconds"])
    expected, found = record["probe"]["expected"], record["probe"]["found"]
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-4)
    assert found["change_norms"]["parameters"] == pytest.approx(
        expected["change_norms"]["parameters"], rel=1e-3
    )
    measured = read_timings(tmp_path / "t.json")
    assert measured.key == ("tiny", 2, "fp32")
    assert measured.seconds == record["median_seconds"]


@pytest.mark.slow
def test_the_manifest_says_what_the_step_is(artifact):
    manifest = read_json(artifact / "artifact.json")
    names = [entry["name"] for entry in manifest["state"]]
    assert len(set(names)) == len(names)
    assert "parameters/context_network/layers/attention/q_proj/kernel" in names
    assert all(name.startswith("parameters/") for name in names)  # sgd has no state
    parameters = sum(np.prod(entry["shape"]) for entry in manifest["state"])
    step = training_step.build(StepSettings(model="tiny", seconds=0.5, batch=2, optimizer="sgd"))
    assert parameters == training_step.tree_size(step.parameters)
    assert manifest["flops"]["total"] > 1e8
    assert manifest["memory"]["cpu_plan_bytes"] > 4 * parameters
    assert manifest["provenance"]["command"].startswith("w2v-jax export")
    losses = manifest["probe"]["losses"]
    assert losses[0] != losses[1] != losses[2]


@pytest.mark.slow
def test_a_plain_step_in_place_of_the_program_finds_the_same(artifact, tmp_path):
    done = run_artifact(artifact, tmp_path / "t.json", "--seconds", "0", "--path", "plain")
    assert done.returncode == 0, done.stderr
    record = read_json(tmp_path / "t.json")
    assert (record["status"], record["path"]) == ("timed", "plain")


@pytest.mark.slow
def test_a_program_of_another_step_is_found_out(artifact, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(artifact, other)
    manifest = read_json(other / "artifact.json")
    manifest["learning_rate"] *= 2  # the plain step obeys it
    write_json(other / "artifact.json", manifest)
    checksum = hashlib.sha256((other / "artifact.json").read_bytes()).hexdigest()
    (other / "artifact.json.sha256").write_text(checksum + "\n")
    done = run_artifact(other, tmp_path / "t.json", "--path", "plain")
    assert done.returncode == 1
    assert "wrong result" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("file", ["step.cpu.jaxexport", "artifact.json", "plain_step.py"])
def test_a_flipped_byte_is_refused(artifact, tmp_path, file):
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(runner.Refusal, match=file):
        runner.load_manifest(copy)


@pytest.mark.parametrize(
    ("precision", "optimizer", "extra"),
    [
        ("fp32", "sgd", set()),
        ("bf16", "adamw", {"optimizer"}),
        ("fp16", "adamw", {"optimizer", "loss_scale"}),
    ],
)
def test_leaves_are_named_as_the_plain_step_knows_them(precision, optimizer, extra):
    settings = StepSettings(model="tiny", seconds=0.5, batch=2, precision=precision, optimizer=optimizer)
    state = jax.eval_shape(training_step.build(settings).begin, training_step.abstract_key())
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)
    names = [entry["name"] for entry in export.describe_state(zeros)]
    assert {name.split("/")[0] for name in names} == {"parameters"} | extra
    parameters = {name.partition("/")[2] for name in names if name.startswith("parameters/")}
    for moment in ("mu", "nu") if optimizer == "adamw" else ():
        prefix = f"optimizer/{moment}/"
        assert {name[len(prefix) :] for name in names if name.startswith(prefix)} == parameters
    if "loss_scale" in extra:
        assert {"loss_scale/scale", "loss_scale/good_steps", "optimizer/count"} <= set(names)


# What follows needs environments of their own and minutes: make test-boards.


def export_to(folder: Path, *argv: str) -> Path:
    command = [sys.executable, "-m", "experiments", "export", *argv, "--out", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run(command, check=True, env=environment, cwd=ROOT)
    return folder


@pytest.mark.boards
@pytest.mark.parametrize(
    ("model", "batch", "seconds", "precision"),
    [("tiny", 4, 5.5, "fp32"), ("base", 1, 5.5, "fp32"), ("base", 1, 5.5, "fp16")],
)
def test_artifacts_run_where_jax_numpy_and_flatbuffers_are_all_there_is(
    tmp_path, model, batch, seconds, precision
):
    if not BOARD:
        pytest.skip("no bare environment: make test-boards sets W2V_JAX_BOARD_PYTHON")
    listed = subprocess.run([BOARD, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "flax" not in listed
    assert "optax" not in listed
    folder = export_to(
        tmp_path / "artifact",
        *("--model", model, "--batch", str(batch), "--seconds", str(seconds), "--precision", precision),
    )
    medians = []
    for number in range(3):
        out = tmp_path / f"{number}.json"
        done = run_artifact(folder, out, python=BOARD)
        assert done.returncode == 0, done.stdout + done.stderr
        record = read_json(out)
        assert record["probe"]["passed"]
        if precision == "fp32":
            expected, found = (record["probe"][name]["losses"] for name in ("expected", "found"))
            np.testing.assert_allclose(found, expected, rtol=1e-4)
        medians.append(record["median_seconds"])
    spread = (max(medians) - min(medians)) / float(np.median(medians))
    print(f"{model}, {precision}: medians {medians}, spread {spread:.1%}")


@pytest.mark.boards
def test_an_old_jax_takes_the_plain_path_and_finds_the_same_numbers(tmp_path):
    if not OLD:
        pytest.skip("no old environment: make test-boards sets W2V_JAX_OLD_PYTHON")
    folder = export_to(tmp_path / "artifact", "--model", "tiny", "--batch", "2", "--seconds", "2")
    out = tmp_path / "t.json"
    done = run_artifact(folder, out, "--seconds", "1", python=OLD)
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_json(out)
    assert (record["path"], record["probe"]["passed"]) == ("plain", True)
    assert record["versions"]["jax"].startswith("0.4.")
    expected, found = (record["probe"][name]["losses"] for name in ("expected", "found"))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
