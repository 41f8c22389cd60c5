"""Write artifacts for boards: a function of flat leaves through jax.export, with a manifest.

The folder holds a program for each platform, the manifest `artifact.json`, the checksums of all of them, and
`runner.py`, which measures the program. The manifest describes the leaves by name, shape, dtype and
distribution. So the runner needs only jax, numpy and flatbuffers, and no library that the function was made
with.
"""

import datetime
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from profiling import runner

MANIFEST = "artifact.json"
UNIFORM_KURTOSIS = 2.4  # between a uniform distribution's 1.8 and a normal one's 3


def describe_leaf(name: str, leaf: Any, draw: dict[str, Any]) -> dict[str, Any]:
    """Describe a leaf for the manifest; `draw` tells the runner how to draw it."""
    return {"name": name, "shape": list(leaf.shape), "dtype": str(leaf.dtype), "draw": draw}


def draw_like(leaf: Any) -> dict[str, Any]:
    """Describe how to draw an array like this one: a constant, or uniform or normal with its moments.

    Weights are not shipped: the board draws them from these distributions, which is enough to time and check
    a step.
    """
    values = np.asarray(leaf, np.float64)
    if values.size == 0 or (values == values.flat[0]).all():
        return {"kind": "constant", "value": float(values.flat[0]) if values.size else 0.0}
    mean, std = float(values.mean()), float(values.std())
    kurtosis = float((((values - mean) / std) ** 4).mean())
    if values.size >= 8 and kurtosis < UNIFORM_KURTOSIS:
        return {"kind": "uniform", "low": mean - 3**0.5 * std, "high": mean + 3**0.5 * std}
    return {"kind": "normal", "mean": mean, "std": std}


def export_program(function: Callable, arguments: Sequence[Any], platform: str) -> bytes:
    """Export a function for one platform and serialise the program.

    Args:
        function: takes and returns flat leaves.
        arguments: jax.ShapeDtypeStruct of each leaf.
        platform: "cpu" or "cuda"; the device need not be here.
    """
    exported = jax_export.export(jax.jit(function), platforms=[platform])(*arguments)
    return bytes(exported.serialize())


def versions() -> dict[str, Any]:
    """Record the date and versions by which the runner judges compatibility."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "jax": importlib.metadata.version("jax"),
        "jaxlib": importlib.metadata.version("jaxlib"),
        "calling_convention_version": jax_export.maximum_supported_calling_convention_version,
    }


def write_artifact(
    folder: Path, manifest: dict[str, Any], programs: dict[str, bytes], plain: Path | None = None
) -> dict[str, Any]:
    """Write programs, runner, the plain step and the manifest, each with its checksum.

    Args:
        folder: created if it is missing; files of the same names are replaced.
        manifest: the manifest without `programs`, `plain` and `format`.
        programs: platform -> serialised program.
        plain: a file with `make_step(manifest)`, for boards whose jax is too old for the programs.

    Returns:
        The manifest as written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"format": runner.FORMAT} | manifest
    manifest["programs"] = {}
    for platform, content in programs.items():
        name = f"step.{platform}.jaxexport"
        _replace(folder / name, content)
        manifest["programs"][platform] = {"file": name, "sha256": _sha256(content), "bytes": len(content)}
    if plain is not None:
        content = plain.read_bytes()
        _replace(folder / plain.name, content)
        manifest["plain"] = {"file": plain.name, "sha256": _sha256(content)}
    shutil.copyfile(runner.__file__, folder / "runner.py")
    text = (json.dumps(manifest, indent=1) + "\n").encode()
    _replace(folder / MANIFEST, text)
    _replace(folder / f"{MANIFEST}.sha256", (_sha256(text) + "\n").encode())
    return manifest


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    """Replace a file, whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)
