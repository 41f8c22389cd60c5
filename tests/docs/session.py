"""Execute a document's blocks in order in the working folder, as a reader at the keyboard would.

    python -m tests.docs.session BLOCKS.json SAID.json

BLOCKS.json is a list of `Block` as dicts; SAID.json becomes the list of their outputs. The first block that
fails ends the session with its traceback.
"""

import contextlib
import glob
import io
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiments.cli import main as cli
from tests.docs.blocks import command_lines
from tests.xla import fast_flags

PORT = "8476"  # in the documents; a free one replaces it


def run_python(block: dict[str, Any], names: dict[str, Any]) -> str:
    """Execute a block and return its output; tracebacks give the document's lines."""
    printed = io.StringIO()
    code = compile("\n" * (block["line"] - 1) + block["text"], block["document"], "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue()


def arguments_of(line: str) -> list[str]:
    """Split a line into words and expand globs as a shell does."""
    found: list[str] = []
    for word in shlex.split(line, comments=True):
        found += sorted(glob.glob(word)) or [word] if "*" in word else [word]
    return found


def run_command(words: list[str], status: int) -> str:
    """Run one line in this process and return its output, with errors where it is to fail."""
    if words[0] == "ls":
        return "".join(f"{name}\n" for name in sorted(os.listdir(words[1])) if not name.startswith("."))
    if words[0] != "w2v-jax":
        raise ValueError(f"a console block runs w2v-jax and ls alone, not {words[0]}")
    out, err = io.StringIO(), io.StringIO()
    sys.argv = list(words)  # the command that run folders write down
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err if status else sys.stderr):
        ended = cli.main(words[1:])
    if ended != status:
        raise RuntimeError(f"{shlex.join(words)} ended with {ended}: {out.getvalue()}{err.getvalue()}")
    return out.getvalue() + err.getvalue()


def own_process(words: list[str]) -> list[str]:
    """Return the words that run a line in a process of its own."""
    return [sys.executable, "-m", "experiments", *words[1:]]


def run_rehearsed(lines: list[str]) -> str:
    """Run every line made small, each in a process, on data that the first block makes; return the output."""
    from tests.docs import rehearsal as docs_rehearsal

    if not Path("corpora").exists():
        docs_rehearsal.prepare(Path.cwd())
    said = []
    for line in lines:
        words = docs_rehearsal.smaller(arguments_of(line))
        if words is not None:
            began = time.monotonic()
            done = subprocess.run(own_process(words), stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{shlex.join(words)} ended with {done.returncode}: {done.stdout}")
            said.append(done.stdout)
            print(f"{time.monotonic() - began:6.1f} s  {shlex.join(words)}", flush=True)
    return "".join(said)


def run_processes(lines: list[str]) -> str:
    """Run each line as a process; return their outputs in the order of the lines."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = str(held.getsockname()[1])
    environment = os.environ | {"XLA_FLAGS": fast_flags(1)}
    started, said = [], []
    for line in lines:
        words = arguments_of(line.removesuffix("&").replace(f":{PORT}", f":{port}"))
        started.append(
            subprocess.Popen(own_process(words), env=environment, stdout=subprocess.PIPE, text=True)
        )
        if not line.endswith("&"):
            for process in started[len(said) :]:
                said.append(process.communicate(timeout=500)[0])
                if process.returncode:
                    raise RuntimeError(f"{line} ended with {process.returncode}: {said[-1]}")
    return "".join(said)


def run_block(block: dict[str, Any], names: dict[str, Any]) -> str:
    """Run a block and return its output."""
    if block["language"] == "python":
        return run_python(block, names)
    lines = command_lines(block["text"])
    if "processes" in block["words"]:
        return run_processes(lines)
    if "rehearsed" in block["words"]:
        return run_rehearsed(lines)
    status = 2 if "fails" in block["words"] else 0
    return "".join(run_command(arguments_of(line), status) for line in lines)


def main(blocks: Path, said: Path) -> None:
    """Run a session."""
    names: dict[str, Any] = {"__name__": "__main__"}
    printed: list[str] = []
    for block in json.loads(blocks.read_text(encoding="utf-8")):
        printed.append(run_block(block, names))
        said.write_text(json.dumps(printed), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
