"""The description of a device, and of the GPU that XLA compiles for."""

import dataclasses
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]
Kind = Literal["server", "computer", "board", "phone"]
Processor = Literal["cpu", "gpu", "tpu"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CudaTarget:
    """A GPU as XLA's compiler describes it, by NVIDIA's tables of compute capabilities and data sheets."""

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
    """A device. Values that are not published are None.

    Attributes:
        title: name of the device for readers.
        kind: server, computer, board or phone.
        processor: the part of it that trains: its GPU, its TPU or its CPU.
        year: year of release.
        memory_bytes: memory of the whole device; boards and phones share it with the operating system. Memory
            is sold in binary units: "8 GB" on a box are 8 GiB, on servers too.
        bytes_per_second: memory bandwidth.
        peak_flops: precision -> dense operations a second; tensor cores for 16 bits, plain cores for fp32.
        watts: highest power mode of a module, thermal design power of a chip, or supply of a board.
        source: source of the figures; "computed" is cores x clock x operations a cycle.
        names: names of the board in /proc/device-tree/model, in lower case.
        plan: the compiler whose memory plan stands for the device: "cpu" or a target; None for no compiler.
        cuda: GPU to compile for without the device.
        tpu: name of the topology to compile for without the device.
        variant_of: name of the device that this row differs from only in its memory, a memory class of the
            paper. Its times are that device's.
    """

    title: str
    kind: Kind
    processor: Processor
    year: int | None
    memory_bytes: int | None
    bytes_per_second: float | None
    peak_flops: dict[Precision, float]
    watts: float | None
    source: str
    names: tuple[str, ...] = ()
    plan: str | None = None
    cuda: CudaTarget | None = None
    tpu: str | None = None
    variant_of: str | None = None

    def ridge(self, precision: Precision) -> float | None:
        """Return the operations a byte above which arithmetic limits a kernel; None for unknown rates."""
        peak = self.peak_flops.get(precision)
        return None if peak is None or self.bytes_per_second is None else peak / self.bytes_per_second


# Fields of CudaTarget that all boards of a compute capability share.
VOLTA = {
    "compute_capability": (7, 2),
    "cores_per_multiprocessor": 64,
    "threads_per_multiprocessor": 2048,
    "shared_bytes_per_multiprocessor": 96 * 1024,
    "shared_bytes_per_block_optin": 96 * 1024,
    "l2_bytes": 512 * 1024,
}
ORIN = {
    "compute_capability": (8, 7),
    "cores_per_multiprocessor": 128,
    "threads_per_multiprocessor": 1536,
    "shared_bytes_per_multiprocessor": 164 * 1024,
    "shared_bytes_per_block_optin": 163 * 1024,
}

# The H100 and the H200 (SXM) are the same chip with other memory.
HOPPER = CudaTarget(
    compute_capability=(9, 0),
    multiprocessors=132,
    cores_per_multiprocessor=128,
    threads_per_multiprocessor=2048,
    shared_bytes_per_multiprocessor=228 * 1024,
    shared_bytes_per_block_optin=227 * 1024,
    l2_bytes=50 * 2**20,
    clock_ghz=1.98,
)
