"""Get huge pages for the arrays of a CPU run where Linux gives them on request."""

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLE = "glibc.malloc.hugetlb"
STARTED_OVER = "W2V_JAX_STARTED_OVER"  # programs with privileges lose their tunables when they start over
GLIBC = (2, 35)  # the first version with the tunable


def start_over_with_huge_pages() -> None:
    """Start this process over, once, with a malloc that asks for huge pages. Call it before anything else.

    A training step of base uses a gigabyte. With huge pages instead of pages of 4 KiB it takes a quarter less
    time on two cores in bf16 (docs/decisions/0012). malloc reads its settings only when a program starts.
    GLIBC_TUNABLES=glibc.malloc.hugetlb=0 turns this off.
    """
    if not wanted(os.environ) or sys.gettrace() is not None:  # a debugger would lose its process
        return
    if spares_memory(sys.argv):
        return
    held = os.environ.get("GLIBC_TUNABLES")
    os.environ[STARTED_OVER] = "1"
    os.environ["GLIBC_TUNABLES"] = ":".join([*filter(None, [held]), f"{TUNABLE}=1"])
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def spares_memory(words: Sequence[str]) -> bool:
    """Tell whether a command's words ask for less memory: huge pages cost some, as the last is never full.

    Commands that measure several methods choose the pages of the processes that they start.
    """
    if "--memory-budget" in words or any(word.startswith("--memory-budget=") for word in words):
        return True
    values = [word.removeprefix("--method=") for word in words if word.startswith("--method=")]
    values += [after for word, after in itertools.pairwise(words) if word == "--method"]
    return any(value != "plain" for value in values)


def wanted(environment: Mapping[str, str]) -> bool:
    """Tell whether the kernel gives huge pages on request, the C library can ask, and no setting decides."""
    decided = TUNABLE in environment.get("GLIBC_TUNABLES", "") or STARTED_OVER in environment
    if decided or not sys.executable:
        return False
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        numbers = tuple(int(part) for part in version.split(".")[:2])
        return name == "glibc" and numbers >= GLIBC and "[madvise]" in ENABLED.read_text()
    except (AttributeError, OSError, ValueError):
        return False
