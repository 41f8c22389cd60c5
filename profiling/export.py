"""Artifacts for boards: a function of flat leaves through jax.export, with a manifest that says all else.

The folder holds a program for each platform, `artifact.json`, the checksums of all of them, and `runner.py`,
which measures it where jax, numpy and flatbuffers are all there is. Names, shapes and dtypes of the leaves,
and how to draw them, are in the manifest: the runner needs none of the libraries that the function was made
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
    """A leaf as the manifest has it; `draw` tells the runner how to make it."""
    return {"name": name, "shape": list(leaf.shape), "dtype": str(leaf.dtype), "draw": draw}


def draw_like(leaf: Any) -> dict[str, Any]:
    """How to draw an array such as this one: a constant, or uniform or normal by its moments.

    Weights are drawn on the board and not shipped; to time a step and to check it, the distribution will do.
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
    """One platform's program, serialised.

    Args:
        function: of flat leaves, to flat leaves.
        arguments: jax.ShapeDtypeStruct of each.
        platform: "cpu" or "cuda"; the device need not be here.
    """
    exported = jax_export.export(jax.jit(function), platforms=[platform])(*arguments)
    return bytes(exported.serialize())


def versions() -> dict[str, Any]:
    """What the runner's window of compatibility goes by."""
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
        folder: made if need be; files of the same names are replaced.
        manifest: all but `programs`, `plain`, `format`.
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
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)
