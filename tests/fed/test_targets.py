"""A round of the speech model compiles for accelerators that are not here."""

import json
import subprocess
import sys

import pytest

from profiling import targets

# Compiling for elsewhere must be decided before jax starts: a process of its own.
COMPILE = """
import json, sys
from profiling import targets
targets.prepare_environment()
from tests.fed.compiled_round import compile_round
print(json.dumps(compile_round(*sys.argv[1:])))
"""


@pytest.mark.targets
@pytest.mark.parametrize("target", ["orin-agx", "tpu-v5e"])
def test_a_round_compiles_for_an_accelerator_that_is_not_here(target):
    if targets.missing(target):
        pytest.skip(str(targets.missing(target)))
    done = subprocess.run([sys.executable, "-c", COMPILE, target], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["programs"]) == {"start", "block", "fold", "whole", "step"}
    assert all(size > 0 for size in found["programs"].values())
    # What clients carry from block to block is updated in place.
    assert found["aliased_bytes"] >= found["state_bytes"]
    if found["lanes"] > 1:
        # Lanes meet once, when the server steps.
        assert found["collectives"] == ["step"]
