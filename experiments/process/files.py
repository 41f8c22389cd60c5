"""Read and write JSON and text files whole."""

import json
import math
from pathlib import Path
from typing import Any


def finite_or_none(value: Any) -> Any:
    """Replace NaN and infinities, which JSON lacks, by None, also within dicts and lists."""
    if isinstance(value, dict):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite_or_none(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    replace_file(path, json.dumps(finite_or_none(value), indent=2) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
