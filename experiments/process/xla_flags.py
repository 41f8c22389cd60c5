"""Set XLA flags before jax starts: devices as lanes, and the compilation cache."""

import os
from pathlib import Path

CPU_FLAGS = (
    # The default scheduler trades memory for parallelism, and lanes are parallel already.
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    # XLA uses vectors of 256 bits by default; elementwise work is faster with the widest that the CPU has.
    "--xla_cpu_prefer_vector_width=512",
)
# With a lane on every core, no core is left for an operation to spread to.
LANES_FLAGS = ("--xla_cpu_multi_thread_eigen=false",)
# No memory plan shows YNNPACK's packed copies of wide fp32 products, and its sums over time are slow. So fp32
# does without YNNPACK, and bf16 uses only its products. Small models are faster with all of it
# (docs/decisions/0012).
SMALL_MODELS = ("tiny",)
WIDE_FLAGS = {
    "fp32": ("--xla_cpu_experimental_ynn_fusion_type=",),
    "bf16": (
        "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    ),
}


def usable_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def configure_xla(
    cpu_devices: int | None = None, *, model: str = SMALL_MODELS[0], precision: str = "fp32"
) -> None:
    """Set XLA flags and the compilation cache. Call it before jax starts its backend.

    Args:
        cpu_devices: number of virtual CPU devices, which are the lanes of a CPU run; by default one for each
            usable core. A flag that the user's XLA_FLAGS sets keeps its value.
        model: the preset that is trained.
        precision: fp32, or the precision to which the operands of products are rounded.
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

    # XLA:CPU splits loops by the number of cores, and the keys of the cache do not contain it.
    share = f"{usable_cores()}-cores-{devices}-devices"
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "w2v-jax" / "xla" / share
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def spare_memory() -> None:
    """Return freed memory to the system at once, so that this process stays as small as its arrays.

    Training methods that spare memory use it; it costs a few page faults, and works on Linux with glibc.
    """
    from profiling import process_memory

    process_memory.give_back_from_now_on()
