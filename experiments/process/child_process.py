"""A function in a process of its own: its memory and its first call are nobody else's."""

import json
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
    """First words of a command line that runs a module of ours.

    Python would look into the working folder before all else, where somebody else's `experiments` may lie.
    """
    return [sys.executable] if Path.cwd() == ROOT else [sys.executable, "-P"]


def in_child(
    function: Callable[..., dict[str, Any]], *given: Any, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a module's function in a new process.

    Args:
        function: named at the top of its module; what it gives is JSON, and its module starts no jax.
        given: its arguments, JSON too.
        environment: of the process, where it is not this one's.

    Raises:
        subprocess.CalledProcessError: it failed; its own words are on standard error.
    """
    done = subprocess.run(
        [*own_python(), "-c", _CODE, function.__module__, function.__name__, json.dumps(given)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    return json.loads(done.stdout.splitlines()[-1])
