"""Start processes and measure their memory from outside: idle, then while they train, then the peak."""

import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from experiments.bench.memory.measured_process import idle_and_train
from experiments.process import huge_pages
from experiments.process.child_process import child_command
from profiling.process_memory import peak_resident_bytes
from w2v_jax import memory_methods
from w2v_jax.errors import UserError

KIBIBYTE = 1024


@dataclasses.dataclass(frozen=True)
class Measured:
    """The memory that a process took, of the machine or of its accelerator.

    Attributes:
        idle_bytes: resident memory after everything was imported and the backend had started.
        peak_bytes: the most that was ever resident, before or after. The system counts it (ru_maxrss), and it
            is never less than the memory of the process that started this one. On an accelerator: the most
            that jax's allocator gave out.
        told: result of `measured_process.idle_and_train`.
    """

    idle_bytes: int
    peak_bytes: int
    told: dict[str, Any]

    @property
    def above_idle_bytes(self) -> int:
        """Return the memory that training added."""
        return self.peak_bytes - self.idle_bytes

    @property
    def memory(self) -> Literal["host", "device"]:
        """Tell whether the memory is the host's or the accelerator's."""
        return "device" if "device_peak_bytes" in self.told else "host"


class OutOfMemory(Exception):
    """The system killed the process."""


def measure(settings: Mapping[str, Any], steps: int, environment: Mapping[str, str]) -> Measured:
    """Start a process, let it train, and read its memory.

    Args:
        settings: fields of StepSettings.
        steps: steps to train.
        environment: environment variables of the process.

    Raises:
        OutOfMemory: the system killed the process.
        UserError: the process failed otherwise, with a reason on standard error. Or this process has held as
            much memory as the child, so that the child's peak cannot be read.
    """
    process = subprocess.Popen(
        child_command(idle_and_train, dict(settings), steps),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=with_pages(environment, huge=settings["method"] == memory_methods.PLAIN),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    idle, printed = 0, []
    for line in process.stdout:  # until the process ends; libraries may print lines too
        printed.append(line)
        if not idle and line.strip() == "idle":
            idle = resident(process.pid)
            process.stdin.write("go\n")
            process.stdin.flush()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdin.close()
    process.stdout.close()
    if process.returncode == -signal.SIGKILL:
        raise OutOfMemory("the system killed the process: it had too little memory")
    if process.returncode != 0 or not idle or not printed:
        raise UserError(
            f"the measured process ended with status {process.returncode}: its messages are above"
        )
    told = json.loads(printed[-1])
    if "device_peak_bytes" in told:
        return Measured(told["device_idle_bytes"], told["device_peak_bytes"], told)
    peak_bytes = used.ru_maxrss * KIBIBYTE
    own_bytes = peak_resident_bytes()  # read it now, not before: a child's ru_maxrss starts from it
    if peak_bytes <= own_bytes:
        raise UserError(
            f"the measuring process has held {own_bytes / 1e9:.2f} GB itself, no less than the measured one: "
            "run the measurement as a command of its own"
        )
    return Measured(idle, peak_bytes, told)


def with_pages(environment: Mapping[str, str], *, huge: bool) -> dict[str, str]:
    """Add the huge pages that a command starts with where the kernel has them, or take them away."""
    tunables = environment.get("GLIBC_TUNABLES", "").split(":")
    kept = [word for word in tunables if word and not word.startswith(huge_pages.TUNABLE)]
    if huge and huge_pages.wanted({}):
        kept.append(f"{huge_pages.TUNABLE}=1")
    return {**environment, "GLIBC_TUNABLES": ":".join(kept)}


def resident(pid: int) -> int:
    """Read the bytes that another process holds now (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * KIBIBYTE
    raise OSError(f"process {pid} has no VmRSS")
