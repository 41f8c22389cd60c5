"""Programs for lanes that share a CPU; each is compiled for its share of the cores."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_TASKS = Path("/proc/self/task")  # this process's threads


@contextlib.contextmanager
def compiling_for(cores: int) -> Iterator[None]:
    """Let XLA:CPU compile as if there were `cores` cores (on Linux; elsewhere it does nothing).

    XLA splits every loop over all cores that its compiling thread may use, and has no option for it.
    Lanes whose loops are split over cores that other lanes keep busy wait for one another all the time
    (docs/decisions/0012 has the figures). XLA compiles on its own threads: all threads of this process
    are confined until it is done.
    """
    if not _TASKS.exists():
        yield
        return
    whole = os.sched_getaffinity(0)
    before = _affinities()
    confined = set(sorted(whole)[: max(1, cores)])
    try:
        for thread in before:
            _confine(thread, confined)
        yield
    finally:
        # Threads that started meanwhile have inherited the confinement.
        for thread in _affinities():
            _confine(thread, before.get(thread, whole))


def _affinities() -> dict[int, set[int]]:
    """Read the cores that each thread may use, by thread id."""
    found = {}
    for path in _TASKS.iterdir():
        with contextlib.suppress(ProcessLookupError):  # the thread has ended
            found[int(path.name)] = os.sched_getaffinity(int(path.name))
    return found


def _confine(thread: int, cores: set[int]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(thread, cores)


class LaneProgram:
    """A jitted program that compiles, at its first call, for one lane's share of the cores."""

    def __init__(self, jitted: Any, lanes: int):
        self._jitted, self._lanes, self._called = jitted, lanes, False

    def __call__(self, *arguments: Any) -> Any:
        if self._called:
            return self._jitted(*arguments)
        with compiling_for(len(os.sched_getaffinity(0)) // self._lanes):
            found = self._jitted(*arguments)
        self._called = True
        return found

    def _cache_size(self) -> int:
        return self._jitted._cache_size()

    def lower(self, *arguments: Any) -> Any:
        """Lower the jitted program."""
        return self._jitted.lower(*arguments)


def for_lanes(jitted: Callable, lanes: int) -> Any:
    """Wrap a jitted program for `lanes` lanes of a CPU; with one lane it stays as it is."""
    if lanes == 1 or not hasattr(os, "sched_getaffinity"):
        return jitted
    return LaneProgram(jitted, lanes)
