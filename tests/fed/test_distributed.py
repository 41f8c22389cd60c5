"""Several processes, and many devices, end where one device does."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from fed.cohort import Layout
from tests.fed import distributed_toy
from tests.paths import ROOT
from tests.xla import fast_flags


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def run_processes(folder, processes: int, devices_each: int, *words: str) -> list:
    """Run the toy in several processes; return what each of them saved."""
    address = f"127.0.0.1:{free_port()}"
    started = []
    for number in range(processes):
        environment = os.environ | {
            "XLA_FLAGS": fast_flags(devices_each),
            "JAX_PLATFORMS": "cpu",
            "PROCESS_ID": str(number),
            "NUM_PROCESSES": str(processes),
        }
        if processes > 1:
            environment["JAX_COORDINATOR_ADDRESS"] = address
        argv = [sys.executable, "-m", "tests.fed.distributed_toy", str(folder / f"{number}.npz"), *words]
        started.append(
            subprocess.Popen(
                argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    for process in started:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()[-2000:]
    return [np.load(folder / f"{number}.npz") for number in range(processes)]


def assert_same(found, expected):
    """Compare within 1e-5 of the global norm."""
    leaves = jax.tree.leaves((expected.server.parameters, expected.server.objective_state))
    held = [found[f"arr_{index}"] for index in range(len(leaves))]
    difference = np.sqrt(sum(np.square(a - b).sum() for a, b in zip(held, leaves, strict=True)))
    assert difference <= 1e-5 * np.sqrt(sum(np.square(leaf).sum() for leaf in leaves))
    np.testing.assert_allclose(found["losses"], expected.losses, rtol=1e-3)
    np.testing.assert_allclose(found["weights"], expected.weights, rtol=1e-3)


@pytest.mark.parametrize(
    ("optimizer", "rounds", "processes", "devices_each"),
    [
        ("sgd", 10, 2, 4),
        pytest.param("sgd", 10, 1, 8, marks=pytest.mark.slow),
        pytest.param("adamw", 1, 2, 4, marks=pytest.mark.slow),
        pytest.param("adamw", 1, 1, 8, marks=pytest.mark.slow),
    ],
)
def test_eight_devices_in_one_or_two_processes_end_where_one_device_does(
    optimizer, rounds, processes, devices_each, tmp_path
):
    results = distributed_toy.run(optimizer, rounds, Layout(1, 1))
    kept = sum(float(np.abs(leaf).sum()) for leaf in jax.tree.leaves(results[0].models.after))
    for found in run_processes(tmp_path, processes, devices_each, optimizer, str(rounds)):
        assert (found["processes"], found["devices"]) == (processes, processes * devices_each)
        assert_same(found, results[-1])
        assert found["kept"] == pytest.approx(kept, rel=1e-4)
