"""Run a document's blocks in a child process and compare their output with the text below them."""

import dataclasses
import doctest
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import Block, blocks_of
from tests.paths import ROOT
from tests.xla import fast_flags

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SECONDS = 570


def chosen(path: Path, *words: str) -> list[Block]:
    """Return a document's executed blocks; those that need more than time only if `words` name it."""
    left_out = {"slow", "parity", "rehearsed", "flower"} - set(words)
    return [block for block in blocks_of(path) if block.executed and not block.words & left_out]


def run(blocks: list[Block], folder: Path, seconds: float = SECONDS) -> None:
    """Execute blocks in `folder`, in order, as one reader; two virtual CPU devices, little optimisation."""
    held = [dataclasses.asdict(block) | {"words": sorted(block.words)} for block in blocks]
    (folder / "blocks.json").write_text(json.dumps(held), encoding="utf-8")
    work = folder / "work"
    work.mkdir()
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": fast_flags(2),
    }
    argv = [
        sys.executable,
        "-m",
        "tests.docs.session",
        *(str(folder / name) for name in ("blocks.json", "said.json")),
    ]
    done = subprocess.run(
        argv, cwd=work, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    said = (
        json.loads((folder / "said.json").read_text(encoding="utf-8"))
        if (folder / "said.json").exists()
        else []
    )
    for block, printed in zip(blocks, said, strict=False):
        check_output(block, printed)
    where = f"{blocks[len(said)].document}, line {blocks[len(said)].line}" if len(said) < len(blocks) else ""
    assert not done.returncode, f"{where}:\n{done.stdout[-1000:]}{done.stderr[-4000:]}"
    assert len(said) == len(blocks)


def check_output(block: Block, printed: str) -> None:
    """Assert that a block printed the `text` below it; without one, any output is right."""
    if block.expected is None:
        return
    example = doctest.Example(block.text, block.expected)
    checker = doctest.OutputChecker()
    assert checker.check_output(block.expected, printed, OPTIONS), (
        f"{block.document}, line {block.line}:\n{checker.output_difference(example, printed, OPTIONS)}"
    )
