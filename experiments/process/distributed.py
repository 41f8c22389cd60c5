"""Join the processes of a distributed run."""

import re
from typing import Any

from experiments.options.errors import UsageError


def join_processes(where: str) -> bool:
    """Make this process one of several. Call it after `configure_xla` and before jax starts.

    Args:
        where: "auto" under a scheduler that jax knows (SLURM, Kubernetes, MPI, TPU pods), otherwise
            "INDEX/COUNT@HOST:PORT" with the address of process 0.

    Returns:
        Whether this process is the first one, which writes for all.

    Raises:
        UsageError: `where` has neither form, or no scheduler is recognised.
    """
    import jax

    if where == "auto":
        given: dict[str, Any] = {}
    else:
        parts = re.fullmatch(r"(\d+)/(\d+)@([^@/]+:\d+)", where)
        if parts is None or not int(parts[1]) < int(parts[2]):
            raise UsageError(
                f"--distributed takes auto or INDEX/COUNT@HOST:PORT (0/2@10.0.0.1:8476), got {where}"
            )
        given = {
            "process_id": int(parts[1]),
            "num_processes": int(parts[2]),
            "coordinator_address": parts[3],
        }
    try:
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"--distributed {where} finds no other processes ({words}): give INDEX/COUNT@HOST:PORT"
        ) from error
    return jax.process_index() == 0
