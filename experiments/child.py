"""A function in a process of its own: its memory and its first call are nobody else's."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

_CODE = (
    "import importlib, json, sys; module, name, given = sys.argv[1:4]; "
    "print(json.dumps(getattr(importlib.import_module(module), name)(*json.loads(given))))"
)


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
        [sys.executable, "-c", _CODE, function.__module__, function.__name__, json.dumps(given)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    return json.loads(done.stdout.splitlines()[-1])
