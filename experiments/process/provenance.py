"""Record how a result was made: command, commit, versions, device, flags and seed."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments.process.xla_flags import usable_cores

PACKAGES = ("w2v-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "fedjax")

ENTRY = Path(__file__).resolve().parents[1] / "__main__.py"  # python -m experiments


def record_provenance(command: str, seed: int | None = None) -> dict[str, Any]:
    """Collect what a result file records about how it was made."""
    import jax

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    device = jax.devices()[0]
    return {
        "command": f"w2v-jax {command} {shlex.join(sys.argv[1:])}".strip()
        if Path(sys.argv[0]).name != "w2v-jax" and Path(sys.argv[0]) != ENTRY  # called from Python
        else shlex.join(["w2v-jax", *sys.argv[1:]]),
        "commit": commit(),
        "versions": versions,
        "backend": jax.default_backend(),
        "device": f"{jax.device_count()} x {device.device_kind}",
        "processes": jax.process_count(),
        "cores": usable_cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "seed": seed,
    }


def commit() -> str:
    """Find the checkout's commit, or W2V_JAX_COMMIT without a checkout; uncommitted changes are marked."""
    root = Path(__file__).resolve().parents[2]
    unknown = os.environ.get("W2V_JAX_COMMIT", "unknown")
    if not (root / ".git").exists():  # installed, perhaps inside the checkout of another project
        return unknown

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
    except (OSError, subprocess.CalledProcessError):
        return unknown
    return f"{head} with changes" if changed else head
