"""Read the lines of a .jsonl file that another process is writing."""

import json
import os
from pathlib import Path
from typing import Any


class JsonLines:
    """Reads the lines that were added since the last call; starts again if the file was replaced.

    Attributes:
        lines: all lines so far, without their lists: lists of all clients and rounds would fill the memory.
        modified_seconds: time of the last write, in seconds since the epoch; None without a file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._begin(None)

    def _begin(self, identity: tuple[int, int] | None) -> None:
        self.lines: list[dict[str, Any]] = []
        self.modified_seconds: float | None = None
        self._identity, self._read_bytes = identity, 0

    def read(self) -> list[dict[str, Any]]:
        """Return all lines so far; a line that is not whole yet waits for the next call."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            self._begin(None)
            return self.lines
        with file:
            held = os.fstat(file.fileno())
            identity = (held.st_dev, held.st_ino)
            if identity != self._identity or held.st_size < self._read_bytes:
                self._begin(identity)  # a continued run replaces its file
            file.seek(self._read_bytes)
            come = file.read()
        whole = come[: come.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        self.lines += [line for text in whole.splitlines() if (line := _parsed(text)) is not None]
        self.modified_seconds = held.st_mtime
        return self.lines


def _parsed(text: bytes) -> dict[str, Any] | None:
    """Parse a line and drop its lists; None if it is no JSON object."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    if not isinstance(line, dict):
        return None
    return {name: value for name, value in line.items() if not isinstance(value, list)}
