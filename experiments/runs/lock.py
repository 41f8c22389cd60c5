"""The lock of a run folder: one process at a time runs in it."""

import contextlib
import fcntl
import time
from pathlib import Path
from typing import IO

LOCK = ".lock"  # held while a process runs in the folder
LOCK_TRIES, LOCK_RETRY_SECONDS = 10, 0.02


def in_use(folder: Path) -> bool:
    """Tell whether a process is running in a run's folder.

    It takes the lock as a shared one for an instant, needs no right to write, and leaves no file behind.
    """
    try:
        with (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def locked(lock: IO[str]) -> bool:
    """Lock a folder for this process; return False if another process runs in it."""
    for _ in range(LOCK_TRIES):
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(LOCK_RETRY_SECONDS)  # `in_use` may hold it for an instant
    return False
