"""Strict JAX in all tests; real corpora where they are, skipped by name where they are not."""

import os
from pathlib import Path

from tests.xla import compile_cache, fast_flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", f"{fast_flags(8)} --xla_cpu_enable_concurrency_optimized_scheduler=false")

# Most of a test's time is compiling what another test, or an earlier run, has compiled. Workers and child
# processes inherit the variables.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(compile_cache())
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED_CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of recorded corpora: W2V_JAX_CORPORA, or ../shared/corpora beside the checkout."""
    folder = Path(os.environ.get("W2V_JAX_CORPORA", SHARED_CORPORA))
    if not folder.is_dir():
        pytest.skip("no recorded corpora: set W2V_JAX_CORPORA to their folder")
    return folder
