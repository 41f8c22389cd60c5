"""Set XLA flags before jax starts: devices as lanes, and the compilation cache."""

import os
from pathlib import Path

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
    from profiling import process_memory

    process_memory.give_back_from_now_on()
