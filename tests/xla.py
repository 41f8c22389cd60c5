"""XLA flags of the tests, which spend their time compiling: the least optimised code, compiled fastest.

Without fusion emitters XLA:CPU compiles in about half the time; gradients differ by rounding (1.5e-7). The
product does not set these flags: at its default optimisation they do not help.
"""

COMPILE_FAST = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


def fast_flags(devices: int) -> str:
    """XLA_FLAGS of a process with `devices` virtual CPU devices that compiles fast."""
    return f"--xla_force_host_platform_device_count={devices} {COMPILE_FAST}"
