"""Read and reduce the resident memory of this process (Linux)."""

import ctypes
import gc
import resource
from pathlib import Path

RETURNED_BYTES = 2 * 2**20
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENAS = -1, -3, -8  # parameters of mallopt(3)
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_bytes() -> int:
    """Return the bytes that this process holds now.

    Raises:
        OSError: this is not Linux.
    """
    return _status("VmRSS")


def peak_resident_bytes() -> int:
    """Return the most bytes that this process has held, since `settle` if that was called."""
    return _status("VmHWM")


def lifetime_peak_bytes() -> int:
    """Return ru_maxrss in bytes, as a parent reads it for a child that has ended."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def available_bytes() -> int:
    """Return the bytes that a new process could take without swapping, by the machine and by its container.

    Raises:
        OSError: this is not Linux, or /proc/meminfo has no MemAvailable.
    """
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            found = int(line.split()[1]) * 1024
            break
    else:
        raise OSError("/proc/meminfo has no MemAvailable")
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and (allowed := limit.read_text().strip()) != "max":
        # The file cache counts as used, but the system frees it when memory is needed.
        told = dict(line.split() for line in (limit.parent / "memory.stat").read_text().splitlines())
        found = min(found, int(allowed) - int(used.read_text()) + int(told.get("inactive_file", 0)))
    return found


def settle() -> int:
    """Return freed memory to the system, and start counting the peak anew.

    Returns:
        Resident bytes now, to subtract from a later peak.
    """
    give_back()
    _CLEAR.write_text("5")
    return resident_bytes()


def give_back() -> None:
    """Return freed memory to the system; a compilation leaves hundreds of megabytes of it behind."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc; other libraries return memory by themselves or not at all
        libc.malloc_trim(0)


def give_back_from_now_on() -> None:
    """Make malloc return freed blocks of `RETURNED_BYTES` or more at once, for the rest of this process.

    Without this, glibc keeps up to 64 MiB in every arena, and nearly every thread has one. Call this before
    threads start.
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
