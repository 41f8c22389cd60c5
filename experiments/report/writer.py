"""Write a result into a folder: JSON for machines, Markdown for readers, pictures beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.process.files import replace_file, write_json


def write_report(
    folder: Path,
    name: str,
    result: dict[str, Any],
    markdown: Callable[[dict[str, Any]], str],
    draw: Callable[[dict[str, Any], Path], None] | None = None,
) -> str:
    """Write NAME.json, NAME.md and NAME.png.

    Args:
        folder: is made where it is missing.
        name: stem of the files.
        result: what is kept, JSON; `provenance` in it says how it came about.
        markdown: makes the text from the result.
        draw: draws the result into a PNG; None where there is no picture.

    Returns:
        The text of NAME.md.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", result)
    if draw is not None:
        draw(result, folder / f"{name}.png")
    text = markdown(result)
    replace_file(folder / f"{name}.md", text)
    return text
