"""Resident memory of this process, as the operating system sees it (Linux)."""

import ctypes
import gc
import resource
from pathlib import Path

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


def settle() -> int:
    """Give freed memory back to the system, and start counting the peak anew.

    Returns:
        Resident bytes now: what is to be taken off a later peak.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc; others give back by themselves or not at all
        libc.malloc_trim(0)
    _CLEAR.write_text("5")
    return resident_bytes()


def _status(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")
