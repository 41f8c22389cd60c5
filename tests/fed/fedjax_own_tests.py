"""Run fedjax's own tests of its algorithms through our backend.

Usage: python -m tests.fed.fedjax_own_tests FOLDER [BACKEND]. FOLDER is a clone of
github.com/google/fedjax. Its test files run from there against the installed fedjax,
with the names restored that today's jax lacks. BACKEND is vmap (ours, the default) or jit (fedjax's).
Arguments after it go to pytest.
"""

import os
import sys
import warnings
from pathlib import Path

import jax
import pytest

from fed.fedjax_compat import restore_removed_names

TESTS = 28  # in google/fedjax since 2023


class Backend:
    """A pytest plugin that sets the backend, and counts tests that passed."""

    def __init__(self, backend: str):
        self.passed = 0
        restore_removed_names()
        # fedjax fails under strict promotion, which our own tests set.
        jax.config.update("jax_numpy_dtype_promotion", "standard")
        jax.config.update("jax_numpy_rank_promotion", "allow")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import fedjax

            from fed.fedjax_vmap import vmap_backend
        fedjax.set_for_each_client_backend(vmap_backend(8) if backend == "vmap" else backend)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count tests that passed; their subtests have reports of another type."""
        self.passed += type(report) is pytest.TestReport and report.when == "call" and report.passed


def main(argv: list[str]) -> int:
    """Run the tests; return 0 if all of them pass."""
    if not argv or not (files := sorted(Path(argv[0]).glob("fedjax/algorithms/*_test.py"))):
        print(
            "give the folder of a clone of github.com/google/fedjax (make test-fedjax FEDJAX_SOURCE=FOLDER)"
        )
        return 2
    backend = Backend(argv[1] if len(argv) > 1 else "vmap")
    os.environ.pop("PYTEST_ADDOPTS", None)
    code = pytest.main(
        ["-c", os.devnull, "--rootdir", argv[0], "--import-mode", "importlib", "-q", "-p", "no:cacheprovider",
         "-W", "ignore", *argv[2:], *map(str, files)],
        plugins=[backend],
    )  # fmt: skip
    print(f"{backend.passed} of {TESTS} of fedjax's tests passed")
    return int(code) or int(backend.passed != TESTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
