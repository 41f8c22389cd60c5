"""Compile a function for a device that is not here, and read the compiler's plan for it.

The plan is not measured: the driver and the context take memory beside it. CUDA targets need the extra
`cuda-target`, TPU targets need `tpu-target`; neither needs a driver.
"""

import importlib.util
import os
from collections.abc import Callable
from typing import Any, Literal

from profiling.device import Device
from profiling.devices import DEVICES

Platform = Literal["gpu", "tpu"]

TARGETS = tuple(name for name, device in DEVICES.items() if device.cuda or device.tpu)
# Autotuning would run kernels. Triton's products are off, because one found no tile sizes without a device.
CUDA_OPTIONS = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}


class TargetError(Exception):
    """The compiler for a target is missing or refuses; the message is one line and says what helps."""


def platform_of(target: str) -> Platform:
    """Return the platform of a target's programs."""
    return "gpu" if DEVICES[target].cuda else "tpu"


def prepare_environment() -> None:
    """Make jax use CPUs for its arrays, whatever plugins are installed; call this before importing jax."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hides complaints about missing drivers


def missing(target: str) -> str | None:
    """Say what to install before compiling for a target; None where nothing is missing."""
    cuda = DEVICES[target].cuda is not None
    modules = ("jax_plugins.xla_cuda12", "nvidia.cuda_nvcc") if cuda else ("libtpu",)
    extra = "cuda-target" if cuda else "tpu-target"
    absent = [name for name in modules if not _installed(name)]
    if not absent:
        return None
    return f"compiling for {target} needs {', '.join(absent)}: pip install 'w2v-jax[{extra}]'"


def compiler_options(target: str) -> dict[str, Any]:
    """Return XLA's options for a target; state them with every plan."""
    return dict(CUDA_OPTIONS) if DEVICES[target].cuda else {}


def devices_of(target: str) -> list[Any]:
    """Return jax's descriptions of a target's devices, for meshes and shardings: one, or a small topology's.

    Raises:
        TargetError: the compiler is not installed or does not know the target.
    """
    from jax.experimental import topologies

    if (absent := missing(target)) is not None:
        raise TargetError(absent)
    device: Device = DEVICES[target]
    try:
        if device.cuda:
            described = topologies.get_topology_desc(
                "cuda", platform="cuda", topology="1x1x1", target_config=describe(target)
            )
        else:
            described = topologies.get_topology_desc(device.tpu or "", platform="tpu")
    except Exception as error:
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TargetError(f"the compiler for {target} does not start: {words}") from error
    return list(described.devices)


def lower_for(target: str, function: Callable, arguments: Any, donate: tuple[int, ...] = ()) -> Any:
    """Lower a function for a target.

    Args:
        target: one of TARGETS.
        function: a function of arrays.
        arguments: trees of jax.ShapeDtypeStruct.
        donate: positions of donated arguments.

    Returns:
        jax.stages.Lowered; compile it with `compiler_options(target)`.

    Raises:
        TargetError: the compiler is not installed or does not know the target.
    """
    import jax
    from jax.sharding import SingleDeviceSharding

    sharding = SingleDeviceSharding(devices_of(target)[0])

    def placed(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    arguments = jax.tree.map(placed, arguments)
    return jax.jit(function, donate_argnums=donate).lower(*arguments)


def compile_lowered(target: str, lowered: Any) -> Any:
    """Compile a program that `lower_for` lowered.

    Raises:
        TargetError: the compiler refuses, for example because the program needs more memory than the device.
    """
    import jax

    try:
        return lowered.compile(compiler_options=compiler_options(target))
    except jax.errors.JaxRuntimeError as error:
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TargetError(f"the compiler for {target} refuses the program: {words}") from error


def describe(target: str) -> str:
    """Describe a CUDA device as XLA's GpuTargetConfigProto in text, and a TPU by the name of its topology."""
    device = DEVICES[target]
    cuda = device.cuda
    if cuda is None:
        return device.tpu or ""
    assert device.bytes_per_second is not None  # a CUDA target has a data sheet
    major, minor = cuda.compute_capability
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {cuda.shared_bytes_per_multiprocessor}
  threads_per_core_limit: {cuda.threads_per_multiprocessor}
  core_count: {cuda.multiprocessors}
  fpus_per_core: {cuda.cores_per_multiprocessor}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {device.bytes_per_second:.0f}
  l2_cache_size: {cuda.l2_bytes}
  clock_rate_ghz: {cuda.clock_ghz}
  device_memory_size: {device.memory_bytes}
  shared_memory_per_block_optin: {cuda.shared_bytes_per_block_optin}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{device.title}"
"""


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
