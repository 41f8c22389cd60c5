"""Devices by name: memory, bandwidth, peak rates and power, each with its source. Unknown stays None."""

import dataclasses
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CudaTarget:
    """What XLA asks of a GPU that it compiles for; NVIDIA's tables by compute capability, and data sheets."""

    compute_capability: tuple[int, int]
    multiprocessors: int
    cores_per_multiprocessor: int
    threads_per_multiprocessor: int
    shared_bytes_per_multiprocessor: int
    shared_bytes_per_block_optin: int
    l2_bytes: int
    clock_ghz: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """A device.

    Attributes:
        memory_bytes: of the whole device; boards share it with the operating system.
        bytes_per_second: memory bandwidth.
        peak_flops: precision -> operations a second, dense; tensor cores for 16 bits, plain cores for fp32.
        watts: highest power mode of the module.
        source: where the figures are from; "computed" is cores x clock x 2.
        cuda: for compiling without the device.
        tpu: topology name for the same.
    """

    title: str
    memory_bytes: int
    bytes_per_second: float
    peak_flops: dict[Precision, float]
    watts: float | None
    source: str
    cuda: CudaTarget | None = None
    tpu: str | None = None

    def ridge(self, precision: Precision) -> float | None:
        """Operations per byte above which a kernel is bound by arithmetic; None where the rate is unknown."""
        peak = self.peak_flops.get(precision)
        return None if peak is None else peak / self.bytes_per_second


_GIB = 2**30
_VOLTA = {
    "compute_capability": (7, 2),
    "cores_per_multiprocessor": 64,
    "threads_per_multiprocessor": 2048,
    "shared_bytes_per_multiprocessor": 96 * 1024,
    "shared_bytes_per_block_optin": 96 * 1024,
    "l2_bytes": 512 * 1024,
}
_ORIN = {
    "compute_capability": (8, 7),
    "cores_per_multiprocessor": 128,
    "threads_per_multiprocessor": 1536,
    "shared_bytes_per_multiprocessor": 164 * 1024,
    "shared_bytes_per_block_optin": 163 * 1024,
}

DEVICES = {
    "xavier-nx": Device(
        title="Jetson Xavier NX",
        memory_bytes=8 * _GIB,
        bytes_per_second=59.7e9,
        peak_flops={"fp32": 0.845e12, "fp16": 6.76e12},
        watts=20,
        source="NVIDIA, Jetson Xavier NX data sheet (8 GB: 384 cores, 48 tensor cores, 1.1 GHz; computed)",
        cuda=CudaTarget(multiprocessors=6, clock_ghz=1.1, **_VOLTA),
    ),
    "xavier-agx": Device(
        title="Jetson AGX Xavier",
        memory_bytes=32 * _GIB,
        bytes_per_second=136.5e9,
        peak_flops={"fp32": 1.41e12, "fp16": 11.3e12},
        watts=30,
        source="NVIDIA, Jetson AGX Xavier data sheet (32 GB: 512 cores, 64 tensor cores, 1.38 GHz; computed)",
        cuda=CudaTarget(multiprocessors=8, clock_ghz=1.377, **_VOLTA),
    ),
    "orin-nx": Device(
        title="Jetson Orin NX 16 GB",
        memory_bytes=16 * _GIB,
        bytes_per_second=102.4e9,
        peak_flops={"fp32": 1.88e12, "bf16": 15.0e12, "fp16": 15.0e12},
        watts=25,
        source="NVIDIA, Jetson Orin NX data sheet (1024 cores, 32 tensor cores, 918 MHz; rates computed)",
        cuda=CudaTarget(multiprocessors=8, clock_ghz=0.918, l2_bytes=2 * 2**20, **_ORIN),
    ),
    "orin-agx": Device(
        title="Jetson AGX Orin 64 GB",
        memory_bytes=64 * _GIB,
        bytes_per_second=204.8e9,
        peak_flops={"fp32": 5.32e12, "bf16": 42.6e12, "fp16": 42.6e12},
        watts=60,
        source="NVIDIA, Jetson AGX Orin data sheet (2048 cores, 64 tensor cores, 1.3 GHz; rates computed)",
        cuda=CudaTarget(multiprocessors=16, clock_ghz=1.3, l2_bytes=4 * 2**20, **_ORIN),
    ),
    "a40": Device(
        title="NVIDIA A40",
        memory_bytes=48 * 10**9,
        bytes_per_second=696e9,
        peak_flops={"fp32": 37.4e12, "bf16": 149.7e12, "fp16": 149.7e12},
        watts=300,
        source="NVIDIA, A40 data sheet",
    ),
    "a100": Device(
        title="NVIDIA A100 80 GB",
        memory_bytes=80 * 10**9,
        bytes_per_second=2.039e12,
        peak_flops={"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12},
        watts=400,
        source="NVIDIA, A100 data sheet (SXM)",
        cuda=CudaTarget(
            compute_capability=(8, 0),
            multiprocessors=108,
            cores_per_multiprocessor=64,
            threads_per_multiprocessor=2048,
            shared_bytes_per_multiprocessor=164 * 1024,
            shared_bytes_per_block_optin=163 * 1024,
            l2_bytes=40 * 2**20,
            clock_ghz=1.41,
        ),
    ),
    "h200": Device(
        title="NVIDIA H200",
        memory_bytes=141 * 10**9,
        bytes_per_second=4.8e12,
        peak_flops={"fp32": 67e12, "bf16": 989e12, "fp16": 989e12},
        watts=700,
        source="NVIDIA, H200 data sheet (SXM; half of the rates with sparsity)",
        cuda=CudaTarget(
            compute_capability=(9, 0),
            multiprocessors=132,
            cores_per_multiprocessor=128,
            threads_per_multiprocessor=2048,
            shared_bytes_per_multiprocessor=228 * 1024,
            shared_bytes_per_block_optin=227 * 1024,
            l2_bytes=50 * 2**20,
            clock_ghz=1.98,
        ),
    ),
    "tpu-v5e": Device(
        title="TPU v5e, one chip",
        memory_bytes=16 * _GIB,
        bytes_per_second=819e9,
        peak_flops={"bf16": 197e12},
        watts=None,
        source="Google Cloud, TPU v5e system architecture",
        tpu="v5e:2x2",
    ),
}
