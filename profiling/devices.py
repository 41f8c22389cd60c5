"""Devices by name: memory, bandwidth, peak rates and power with their source. Unknown values are None."""

import dataclasses

from profiling.device import HOPPER, ORIN, VOLTA, CudaTarget, Device

_GIB = 2**30

_CATALOGUE = {
    "a40": Device(
        title="NVIDIA A40",
        kind="server",
        processor="gpu",
        year=2020,
        memory_bytes=48 * _GIB,
        bytes_per_second=696e9,
        peak_flops={"fp32": 37.4e12, "bf16": 149.7e12, "fp16": 149.7e12},
        watts=300,
        source="NVIDIA, A40 data sheet",
        plan="orin-agx",
    ),
    "macbook-2019": Device(
        title="MacBook Pro 2019 (8-core i9)",
        kind="computer",
        processor="cpu",
        year=2019,
        memory_bytes=16 * _GIB,
        bytes_per_second=41.8e9,
        peak_flops={"fp32": 8 * 2.3e9 * 32},
        watts=45,
        source="Intel ARK, Core i9-9880H (8 cores, 2.3 GHz, 41.8 GB/s, 45 W); two AVX2 multiply-adds a "
        "cycle, computed; Apple, technical specifications (16 GB at least). The paper does not name the i9",
        plan="cpu",
    ),
    "rpi-4": Device(
        title="Raspberry Pi 4",
        kind="board",
        processor="cpu",
        year=2019,
        memory_bytes=8 * _GIB,
        bytes_per_second=12.8e9,
        peak_flops={"fp32": 4 * 1.5e9 * 8},
        watts=15,
        source="Raspberry Pi 4 product brief (4 Cortex-A72 at 1.5 GHz, LPDDR4-3200 of 32 bits, up to 8 GB, "
        "supply of 5 V and 3 A: an upper bound); one multiply-add of 128 bits a cycle, computed",
        names=("raspberry pi 4",),
        plan="cpu",
    ),
    "rpi-5": Device(
        title="Raspberry Pi 5",
        kind="board",
        processor="cpu",
        year=2023,
        memory_bytes=8 * _GIB,
        bytes_per_second=17.1e9,
        peak_flops={"fp32": 4 * 2.4e9 * 16},
        watts=25,
        source="Raspberry Pi 5 product brief (4 Cortex-A76 at 2.4 GHz, LPDDR4X-4267 of 32 bits, 8 GB, "
        "supply of 5 V and 5 A: an upper bound); two multiply-adds of 128 bits a cycle, computed",
        names=("raspberry pi 5",),
        plan="cpu",
    ),
    "xavier-nx": Device(
        title="Jetson Xavier NX",
        kind="board",
        processor="gpu",
        year=2020,
        memory_bytes=8 * _GIB,
        bytes_per_second=59.7e9,
        peak_flops={"fp32": 0.845e12, "fp16": 6.76e12},
        watts=20,
        source="NVIDIA, Jetson Xavier NX data sheet (8 GB: 384 cores, 48 tensor cores, 1.1 GHz; computed)",
        names=("xavier nx",),
        plan="xavier-agx",
        cuda=CudaTarget(multiprocessors=6, clock_ghz=1.1, **VOLTA),
    ),
    "xavier-agx": Device(
        title="Jetson AGX Xavier",
        kind="board",
        processor="gpu",
        year=2018,
        memory_bytes=32 * _GIB,
        bytes_per_second=136.5e9,
        peak_flops={"fp32": 1.41e12, "fp16": 11.3e12},
        watts=30,
        source="NVIDIA, Jetson AGX Xavier data sheet (32 GB: 512 cores, 64 tensor cores, 1.38 GHz; computed)",
        names=("agx xavier", "jetson-agx", "xavier developer kit"),
        plan="xavier-agx",
        cuda=CudaTarget(multiprocessors=8, clock_ghz=1.377, **VOLTA),
    ),
    "orin-nx": Device(
        title="Jetson Orin NX 16 GB",
        kind="board",
        processor="gpu",
        year=2023,
        memory_bytes=16 * _GIB,
        bytes_per_second=102.4e9,
        peak_flops={"fp32": 1.88e12, "bf16": 15.0e12, "fp16": 15.0e12},
        watts=25,
        source="NVIDIA, Jetson Orin NX data sheet (1024 cores, 32 tensor cores, 918 MHz; rates computed)",
        names=("orin nx",),
        plan="orin-agx",
        cuda=CudaTarget(multiprocessors=8, clock_ghz=0.918, l2_bytes=2 * 2**20, **ORIN),
    ),
    "orin-agx": Device(
        title="Jetson AGX Orin 64 GB",
        kind="board",
        processor="gpu",
        year=2022,
        memory_bytes=64 * _GIB,
        bytes_per_second=204.8e9,
        peak_flops={"fp32": 5.32e12, "bf16": 42.6e12, "fp16": 42.6e12},
        watts=60,
        source="NVIDIA, Jetson AGX Orin data sheet (2048 cores, 64 tensor cores, 1.3 GHz; rates computed)",
        names=("agx orin",),
        plan="orin-agx",
        cuda=CudaTarget(multiprocessors=16, clock_ghz=1.3, l2_bytes=4 * 2**20, **ORIN),
    ),
    "thor": Device(
        title="Jetson AGX Thor (T5000)",
        kind="board",
        processor="gpu",
        year=2025,
        memory_bytes=128 * _GIB,
        bytes_per_second=273e9,
        peak_flops={"fp32": 2560 * 2 * 1.575e9, "bf16": 258.75e12, "fp16": 258.75e12},
        watts=130,
        source="NVIDIA, Jetson AGX Thor data sheet (2560 cores, 1.575 GHz, computed; 16 bits: an eighth of "
        "its 2,070 TFLOP/s in FP4 with sparsity). No compiler for it here: the plan is that of Orin's",
        names=("agx thor", "jetson thor"),
        plan="orin-agx",
    ),
    "a15": Device(
        title="Apple A15 Bionic",
        kind="phone",
        processor="gpu",
        year=2021,
        memory_bytes=None,
        bytes_per_second=None,
        peak_flops={},
        watts=None,
        source="Apple publishes neither memory, rates, bandwidth nor power",
        plan="cpu",
    ),
    "tensor": Device(
        title="Google Tensor",
        kind="phone",
        processor="gpu",
        year=2021,
        memory_bytes=8 * _GIB,
        bytes_per_second=None,
        peak_flops={},
        watts=None,
        source="Google, Pixel 6 specifications (8 GB; 12 GB in the Pro); Google publishes no rates",
        plan="cpu",
    ),
    "snapdragon-870": Device(
        title="Snapdragon 870",
        kind="phone",
        processor="gpu",
        year=2021,
        memory_bytes=None,
        bytes_per_second=44e9,
        peak_flops={},
        watts=None,
        source="Qualcomm, Snapdragon 870 product brief (LPDDR5 at 2750 MHz, 64 bits: computed; each phone "
        "chooses its memory); Qualcomm publishes no rates of its GPU",
        plan="cpu",
    ),
    "a100": Device(
        title="NVIDIA A100 80 GB",
        kind="server",
        processor="gpu",
        year=2020,
        memory_bytes=80 * _GIB,
        bytes_per_second=2.039e12,
        peak_flops={"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12},
        watts=400,
        source="NVIDIA, A100 data sheet (SXM)",
        plan="orin-agx",
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
    "h100": Device(
        title="NVIDIA H100",
        kind="server",
        processor="gpu",
        year=2022,
        memory_bytes=80 * _GIB,
        bytes_per_second=3.35e12,
        peak_flops={"fp32": 67e12, "bf16": 989e12, "fp16": 989e12},
        watts=700,
        names=("nvidia h100 80gb hbm3",),
        source="NVIDIA, H100 data sheet (SXM; half of the rates with sparsity)",
        plan="orin-agx",
        cuda=HOPPER,
    ),
    "h200": Device(
        title="NVIDIA H200",
        kind="server",
        processor="gpu",
        year=2024,
        memory_bytes=141 * _GIB,
        bytes_per_second=4.8e12,
        peak_flops={"fp32": 67e12, "bf16": 989e12, "fp16": 989e12},
        watts=700,
        names=("nvidia h200",),
        source="NVIDIA, H200 data sheet (SXM; half of the rates with sparsity)",
        plan="orin-agx",
        cuda=HOPPER,
    ),
    "tpu-v5e": Device(
        title="TPU v5e, one chip",
        kind="server",
        processor="tpu",
        year=2023,
        memory_bytes=16 * _GIB,
        bytes_per_second=819e9,
        peak_flops={"bf16": 197e12},
        watts=None,
        source="Google Cloud, TPU v5e system architecture",
        tpu="v5e:2x2",
    ),
}

# The memory classes of the paper (section 3.3), in GiB: name -> lower and upper end. The paper does not say
# which variant of a board it ran on.
PAPER_CLASSES = {
    "rpi-4": (4, 8),
    "xavier-nx": (4, 8),
    "a15": (4, 8),
    "xavier-agx": (8, 12),
    "tensor": (8, 12),
    "snapdragon-870": (8, 12),
}


def _paper_row(name: str) -> Device:
    """Make the row of a device whose memory is the upper end of the paper's class."""
    device, (least, most) = _CATALOGUE[name], PAPER_CLASSES[name]
    return dataclasses.replace(
        device,
        title=f"{device.title}, {most} GB (the paper's class)",
        memory_bytes=most * _GIB,
        source=f"memory: upper end of the paper's class, {least} to {most} GB; all else: {device.title}",
        names=(),
        cuda=None,
        variant_of=name,
    )


def _with_paper_rows() -> dict[str, Device]:
    """Add a row NAME-paper after each device whose own memory is not the upper end of its class."""
    found = {}
    for name, device in _CATALOGUE.items():
        found[name] = device
        if name in PAPER_CLASSES and device.memory_bytes != PAPER_CLASSES[name][1] * _GIB:
            found[f"{name}-paper"] = _paper_row(name)
    return found


DEVICES = _with_paper_rows()


def in_paper_class(name: str) -> Device:
    """Look up a device with the memory of the paper's class; the device itself where it has no such row."""
    return DEVICES.get(f"{name}-paper", DEVICES[name])


def named_like(model: str) -> str | None:
    """Find the device that a board's own name (/proc/device-tree/model) contains, or None."""
    words = model.lower().replace("\0", "")
    return next((key for key, device in DEVICES.items() if any(name in words for name in device.names)), None)
