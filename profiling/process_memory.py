"""Resident memory of this process, as the operating system sees it (Linux)."""

import ctypes
import gc
import resource
from pathlib import Path

RETURNED_BYTES = 2 * 2**20
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENAS = -1, -3, -8  # of mallopt(3)
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_bytes() -> int:
    """Memory that this process holds now.

    Raises:
        OSError: not Linux.
    """
    return _status("VmRSS")


def peak_resident_bytes() -> int:
    """Most memory that this process has held, since `forget_peak` if that was called."""
    return _status("VmHWM")


def lifetime_peak_bytes() -> int:
    """ru_maxrss: as a parent reads it of a child that has ended."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def available_bytes() -> int:
    """Memory that a new process could have here without swapping, of the machine and of its container.

    Raises:
        OSError: not Linux, or a /proc/meminfo without MemAvailable.
    """
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            found = int(line.split()[1]) * 1024
            break
    else:
        raise OSError("/proc/meminfo has no MemAvailable")
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and (allowed := limit.read_text().strip()) != "max":
        # Files that were read count as used, and are let go of when room is wanted.
        told = dict(line.split() for line in (limit.parent / "memory.stat").read_text().splitlines())
        found = min(found, int(allowed) - int(used.read_text()) + int(told.get("inactive_file", 0)))
    return found


def settle() -> int:
    """Give freed memory back to the system, and start counting the peak anew.

    Returns:
        Resident bytes now: what is to be taken off a later peak.
    """
    give_back()
    _CLEAR.write_text("5")
    return resident_bytes()


def give_back() -> None:
    """Give freed memory back to the system; a compilation leaves hundreds of megabytes of it behind."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc; others give back by themselves or not at all
        libc.malloc_trim(0)


def give_back_from_now_on() -> None:
    """Have malloc return freed memory at once, from `RETURNED_BYTES` on, for the rest of this process.

    glibc else keeps up to 64 MiB in every arena, and there is an arena for nearly every thread: to be called
    before there are threads.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    for parameter, value in (
        (_MMAP_THRESHOLD, RETURNED_BYTES),
        (_TRIM_THRESHOLD, RETURNED_BYTES),
        (_ARENAS, 1),
    ):
        libc.mallopt(parameter, value)


def _status(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")
