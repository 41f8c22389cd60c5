"""The process: XLA flags before jax is imported, devices as lanes, provenance of results."""

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments.arguments import UsageError

CPU_FLAGS = (
    # The default scheduler trades memory for parallelism, and lanes are parallel already.
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    # XLA takes vectors of 256 bits unless it is told; elementwise work is faster with all that there are.
    "--xla_cpu_prefer_vector_width=512",
)
# With a lane on every core, an operation has no other core to spread to.
LANES_FLAGS = ("--xla_cpu_multi_thread_eigen=false",)
# YNNPACK's packed copies of wide fp32 products are in no memory plan; its sums over time are slow, so that
# bf16 takes its products alone. Small models are faster with all of it (docs/decisions/0012).
SMALL_MODELS = ("tiny",)
WIDE_FLAGS = {
    "fp32": ("--xla_cpu_experimental_ynn_fusion_type=",),
    "bf16": (
        "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    ),
}
PACKAGES = ("w2v-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "fedjax")


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def configure_xla(
    cpu_devices: int | None = None, *, model: str = SMALL_MODELS[0], precision: str = "fp32"
) -> None:
    """Set XLA flags and the compilation cache; to be called before jax starts its backend.

    Args:
        cpu_devices: virtual CPU devices, the lanes of a CPU run; the usable cores by default.
            Flags that the user's XLA_FLAGS set already win.
        model: preset that is trained.
        precision: fp32, or what its products' operands are rounded to.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    devices = cpu_devices or usable_cores()
    wanted = (
        *CPU_FLAGS,
        *(WIDE_FLAGS.get(precision, ()) if model not in SMALL_MODELS else ()),
        *(LANES_FLAGS if devices == usable_cores() > 1 else ()),
        f"--xla_force_host_platform_device_count={devices}",
    )
    for flag in wanted:
        if flag.split("=")[0] not in flags:
            flags = f"{flags} {flag}".strip()
    os.environ["XLA_FLAGS"] = flags
    import jax

    # XLA:CPU splits loops by the cores it sees, which is in no key of the cache.
    share = f"{usable_cores()}-cores-{devices}-devices"
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "w2v-jax" / "xla" / share
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def spare_memory() -> None:
    """Keep this process as small as its arrays: what is freed goes back to the system, at a few page faults.

    For training methods that spare memory; where the system is Linux with glibc.
    """
    from profiling import resident

    resident.give_back_from_now_on()


def join_processes(where: str) -> bool:
    """Make this process one of several; to be called after `configure_xla` and before jax starts.

    Args:
        where: "auto" under a scheduler that jax knows (SLURM, Kubernetes, MPI, TPU pods), else
            "INDEX/COUNT@HOST:PORT" with the address of process 0.

    Returns:
        Whether it is the first one, which writes for all.

    Raises:
        UsageError: `where` is neither, or no scheduler is recognised.
    """
    import jax

    if where == "auto":
        given: dict[str, Any] = {}
    else:
        parts = re.fullmatch(r"(\d+)/(\d+)@([^@/]+:\d+)", where)
        if parts is None or not int(parts[1]) < int(parts[2]):
            raise UsageError(
                f"--distributed takes auto or INDEX/COUNT@HOST:PORT (0/2@10.0.0.1:8476), got {where}"
            )
        given = {
            "process_id": int(parts[1]),
            "num_processes": int(parts[2]),
            "coordinator_address": parts[3],
        }
    try:
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"--distributed {where} finds no other processes ({words}): give INDEX/COUNT@HOST:PORT"
        ) from error
    return jax.process_index() == 0


def provenance(command: str, seed: int | None = None) -> dict[str, Any]:
    """What a result file records about how it came about."""
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
        if Path(sys.argv[0]).name not in ("w2v-jax", "cli.py")  # one command's module, run alone
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
    """The checkout's commit, or W2V_JAX_COMMIT where there is none; uncommitted changes are marked."""
    root = Path(__file__).resolve().parent.parent
    unknown = os.environ.get("W2V_JAX_COMMIT", "unknown")
    if not (root / ".git").exists():  # installed, perhaps inside of a checkout of something else
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
