"""Processes whose memory is measured from outside: idle, then three training steps, then the peak."""

import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from experiments.process import huge_pages
from experiments.process.child_process import own_python
from profiling.process_memory import peak_resident_bytes
from w2v_jax import memory_methods
from w2v_jax.errors import UserError

KIBIBYTE = 1024


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a process took, of the machine's memory or of its accelerator's.

    Attributes:
        idle_bytes: resident once everything was imported and the backend had started.
        peak_bytes: most that was ever resident, before or after; as the system counts it when the process
            has ended (ru_maxrss), which is never less than what the process that started it held. On an
            accelerator: most that jax's allocator there gave out.
        told: what the process says of itself (memory_child).
    """

    idle_bytes: int
    peak_bytes: int
    told: dict[str, Any]

    @property
    def above_idle_bytes(self) -> int:
        """What training added."""
        return self.peak_bytes - self.idle_bytes

    @property
    def memory(self) -> Literal["host", "device"]:
        """Whose it is."""
        return "device" if "device_peak_bytes" in self.told else "host"


class OutOfMemory(Exception):
    """The system ended the process."""


def measure(settings: Mapping[str, Any], steps: int, environment: Mapping[str, str]) -> Measured:
    """Start a process, let it train, and read its memory.

    Args:
        settings: of StepSettings.
        steps: to train.
        environment: of the process.

    Raises:
        OutOfMemory: the system ended it.
        UserError: it failed otherwise; its own words are on standard error. Or this process has held so much
            that what the child took cannot be told from it.
    """
    process = subprocess.Popen(
        [
            *own_python(),
            "-m",
            "experiments.bench.memory.measured_process",
            json.dumps({**settings, "steps": steps}),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=with_pages(environment, huge=settings["method"] == memory_methods.PLAIN),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    idle, said = 0, []
    for line in process.stdout:  # until the process ends, whatever else a library prints
        said.append(line)
        if not idle and line.strip() == "idle":
            idle = resident(process.pid)
            process.stdin.write("go\n")
            process.stdin.flush()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdin.close()
    process.stdout.close()
    if process.returncode == -signal.SIGKILL:
        raise OutOfMemory("the system ended the process: it had too little memory")
    if process.returncode != 0 or not idle or not said:
        raise UserError(
            f"the process that was to be measured ended with status {process.returncode}: its words are above"
        )
    told = json.loads(said[-1])
    if "device_peak_bytes" in told:
        return Measured(told["device_idle_bytes"], told["device_peak_bytes"], told)
    peak_bytes = used.ru_maxrss * KIBIBYTE
    own_bytes = peak_resident_bytes()  # now, not before: a child's ru_maxrss begins with it
    if peak_bytes <= own_bytes:
        raise UserError(
            f"the measuring process has held {own_bytes / 1e9:.2f} GB itself, no less than what it measured: "
            "start it anew, as a command of its own"
        )
    return Measured(idle, peak_bytes, told)


def with_pages(environment: Mapping[str, str], *, huge: bool) -> dict[str, str]:
    """As the command would start: with huge pages where the kernel gives them, or sparing memory without."""
    tunables = environment.get("GLIBC_TUNABLES", "").split(":")
    kept = [word for word in tunables if word and not word.startswith(huge_pages.TUNABLE)]
    if huge and huge_pages.wanted({}):
        kept.append(f"{huge_pages.TUNABLE}=1")
    return {**environment, "GLIBC_TUNABLES": ":".join(kept)}


def resident(pid: int) -> int:
    """Bytes that another process holds now (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * KIBIBYTE
    raise OSError(f"process {pid} has no VmRSS")
