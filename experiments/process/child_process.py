"""Run a function of this project in a child process, with memory and a first compilation of its own."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_CODE = (
    "import importlib, json, sys; module, name, given = sys.argv[1:4]; "
    "print(json.dumps(getattr(importlib.import_module(module), name)(*json.loads(given))))"
)


def own_python() -> list[str]:
    """Return the first words of a command line that runs a module of this project.

    Python looks into the working folder first, and another package named `experiments` may lie there.
    """
    return [sys.executable] if Path.cwd() == ROOT else [sys.executable, "-P"]


def child_command(function: Callable[..., dict[str, Any]], *given: Any) -> list[str]:
    """Return the command line that calls a function and prints its result as one line of JSON.

    Args:
        function: stands at the top level of its module and returns JSON; importing the module starts no jax.
        given: arguments of the function, JSON too.
    """
    return [*own_python(), "-c", _CODE, function.__module__, function.__name__, json.dumps(given)]


def run_in_child(
    function: Callable[..., dict[str, Any]],
    *given: Any,
    environment: Mapping[str, str] | None = None,
    keep_errors: bool = False,
) -> dict[str, Any]:
    """Call a function in a child process and return its result.

    Args:
        function: see `child_command`.
        given: arguments of the function.
        environment: environment variables of the child; those of this process by default.
        keep_errors: keep the child's standard error for `why_it_failed` instead of passing it on.

    Raises:
        subprocess.CalledProcessError: the child failed.
    """
    done = subprocess.run(
        child_command(function, *given),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if keep_errors else None,
        text=True,
        check=True,
        env=environment,
    )
    return json.loads(done.stdout.splitlines()[-1])


def why_it_failed(error: subprocess.CalledProcessError) -> str:
    """Give the reason why a child failed, in one line."""
    if error.returncode < 0:
        name = signal.Signals(-error.returncode).name
        return f"it was killed by {name}, which usually means that memory ran out"
    words = (error.stderr or "").strip().splitlines()
    return words[-1] if words else f"exit status {error.returncode}"
