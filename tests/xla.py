"""XLA in the tests, which spend their time compiling: flags that compile fast, and a cache between runs."""

import hashlib
import importlib.metadata
import platform
import shutil
from pathlib import Path

from tests.paths import ROOT

# Without fusion emitters XLA:CPU compiles in about half the time; gradients differ by rounding (1.5e-7). The
# product does not set these flags: they make its programs slower.
COMPILE_FAST = "--xla_backend_optimization_level=0"
WITHOUT_EMITTERS = "--xla_cpu_use_fusion_emitters=false"  # jaxlib 0.12 does not know it, and aborts
CACHE = ROOT / ".test-cache"


def fast_flags(devices: int) -> str:
    """XLA_FLAGS of a process with `devices` virtual CPU devices that compiles fast."""
    major, minor = (int(part) for part in importlib.metadata.version("jaxlib").split(".")[:2])
    emitters = f" {WITHOUT_EMITTERS}" if (major, minor) < (0, 12) else ""
    return f"--xla_force_host_platform_device_count={devices} {COMPILE_FAST}{emitters}"


def compile_cache() -> Path:
    """Make the folder of compiled programs that is kept between runs of the tests; git ignores it.

    Programs are for one processor and one jaxlib: the folder's name holds both, and folders of others go.
    """
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        told = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
        model = "\n".join(sorted(set(told))) or model
    except OSError:
        pass  # no Linux
    key = hashlib.sha256(f"{model}\n{importlib.metadata.version('jaxlib')}".encode()).hexdigest()[:16]
    folder = CACHE / key
    folder.mkdir(parents=True, exist_ok=True)
    for other in CACHE.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder
