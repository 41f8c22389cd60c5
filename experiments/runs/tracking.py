"""Send the scalars of metrics.jsonl to Trackio or Weights & Biases, as `--track` asks."""

import importlib
import os
import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from experiments.options.errors import UsageError
from experiments.process.files import read_json, write_json
from experiments.runs.metric_columns import scalars
from w2v_jax.errors import UserError

Library = Literal["trackio", "wandb"]
FILE = "tracking.json"  # in the run folder: the tracked runs by library, and the last line that each has
PROJECT = "w2v-jax"  # unless WANDB_PROJECT or TRACKIO_PROJECT names another


def check_installed(library: Library | None) -> None:
    """Check that the library of `--track` can be imported.

    Raises:
        UsageError: it is not installed.
    """
    if library is None:
        return
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise UsageError(
            f"--track {library} needs the library {library} ({error}): pip install {library}"
        ) from error


class Tracker:
    """A tracked run, which gets each line's scalars once, by the names that TensorBoard shows.

    A run that continues goes on in the same tracked run. Lines after its checkpoint, which it computes again,
    are not sent twice: the tracked run keeps the first ones.
    """

    def __init__(
        self,
        library: str,
        folder: Path,
        settings: dict[str, Any],
        lines: Sequence[dict[str, Any]],
        unit: str,
        say: Callable[[str], None] = print,
    ):
        """Begin the tracked run, or continue it, and send the lines that it lacks.

        Args:
            library: the name of its module: trackio or wandb.
            folder: the run folder.
            settings: of the run; they become the tracked run's configuration.
            lines: of metrics.jsonl.
            unit: the column that is the step: round or update.
            say: prints a line.

        Raises:
            UserError: the library refuses, for example because nobody is logged in.
        """
        self._library, self._unit, self._say = library, unit, say
        self._path = folder / FILE
        self._failure: str | None = None
        self._unsent = 0
        known = read_json(self._path) if self._path.exists() else {}
        fresh = {"project": _project(library), "id": _fresh_id(folder), "last": 0}
        self._known = known | {library: known.get(library, fresh)}
        self._held = self._known[library]
        write_json(self._path, self._known)  # before anything is sent: a kill must not lose the id
        try:
            self._run = _begin(library, folder, settings, self._held)
        except Exception as error:  # any error of the library: the user reads it, and nothing has run yet
            raise UserError(f"--track {library} cannot begin: {_one_line(error)}") from error
        say(f"tracked by {library}: project {self._held['project']}, run {self._held['id']}")
        for line in lines:
            self.append(line)

    def append(self, line: dict[str, Any]) -> None:
        """Send a line, unless the tracked run has it. A failure is said once, and ends the sending."""
        step = line[self._unit]
        if step <= self._held["last"]:
            return
        if self._failure is not None:
            self._unsent += 1
            return
        try:
            self._run.log(scalars(line, self._unit), step=step)
        except Exception as error:  # any error of the library: it is told, and must not end training
            self._fail("cannot take a line", error)
            self._unsent += 1
            return
        self._held["last"] = step
        write_json(self._path, self._known)

    def close(self) -> None:
        """End the tracked run; lines that were not sent are counted."""
        try:
            importlib.import_module(self._library).finish()  # ends it for the library's own clean-up too
        except Exception as error:  # any error of the library: it is told, and the run is done
            self._say(f"--track {self._library} cannot end its run: {_one_line(error)}")
        if self._unsent:
            self._say(
                f"--track {self._library}: lines not sent: {self._unsent}; metrics.jsonl has them, and the "
                "same command sends them when it continues the run"
            )

    def _fail(self, what: str, error: Exception) -> None:
        self._failure = f"--track {self._library} {what}, and training goes on without it: {_one_line(error)}"
        self._say(self._failure)


def _project(library: str) -> str:
    return os.environ.get(f"{library.upper()}_PROJECT") or PROJECT


def _fresh_id(folder: Path) -> str:
    """Make an id that no other run has, of characters that both libraries take."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name)[:80]
    return f"{name}-{uuid.uuid4().hex[:8]}"


def _begin(library: str, folder: Path, settings: dict[str, Any], held: dict[str, Any]) -> Any:
    """Begin or continue a tracked run; wandb knows runs by an id, trackio by their name."""
    module = importlib.import_module(library)
    if library == "wandb":
        names: dict[str, Any] = {"id": held["id"], "name": folder.name, "dir": str(folder)}
    else:
        names = {"name": held["id"], "embed": False}
    return module.init(project=held["project"], config=settings, resume="allow", **names)


def _one_line(error: Exception) -> str:
    """Shorten an error to its kind and the first line of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
