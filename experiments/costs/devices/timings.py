"""What runner.py brought back from a board: timings.json, checked."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from experiments.process.files import read_json
from profiling import runner, this_machine
from profiling.devices import DEVICES, named_like
from w2v_jax.errors import UserError

TIMED, OUT_OF_MEMORY, WRONG = "timed", "out_of_memory", "wrong_result"
SETTINGS = ("model", "seconds", "batch", "precision", "method", "optimizer")


@dataclasses.dataclass(frozen=True)
class Measured:
    """A step that was run on a board.

    Attributes:
        device: the catalogue's name of it, or None for one that is not in it.
        title: what to call it.
        settings: of the step, as in experiments.costs.step.training_step.StepSettings.
        seconds: median of a step; None where it ran out of memory.
        spread: (p90 - p10) / median; None likewise.
        record: the whole file.
    """

    device: str | None
    title: str
    settings: dict[str, Any]
    seconds: float | None
    spread: float | None
    record: dict[str, Any]

    @property
    def key(self) -> tuple[str, int, str]:
        """(model, batch, precision)."""
        return self.settings["model"], self.settings["batch"], self.settings["precision"]


def read_timings(path: Path) -> Measured:
    """Read and check a timings.json.

    Raises:
        UserError: it is not there, is not one, or holds a wrong result or figures that cannot be.
    """
    try:
        record = read_json(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError:
        raise UserError(f"{path} is not whole: copy the timings.json that runner.py wrote again") from None
    try:
        if record["format"] != runner.FORMAT:
            raise UserError(f"{path} is of format {record['format']}; this reads format {runner.FORMAT}")
        settings = {name: record["artifact"]["settings"][name] for name in SETTINGS}
        status, label = record["status"], record["device"]
        board = record["board"].get("model") or record["board"].get("cpu") or "a board without a name"
        seconds, spread = (record.get(name) for name in ("median_seconds", "spread"))
    except (KeyError, TypeError, AttributeError) as error:
        missing = f": no {error}" if isinstance(error, KeyError) else ""
        raise UserError(f"{path} is not a timings.json of runner.py{missing}") from None
    if status == WRONG:
        raise UserError(f"{path}: the step gave wrong numbers on {board}; its times say nothing")
    if status not in (TIMED, OUT_OF_MEMORY):
        raise UserError(f"{path}: unknown status {status!r}; expected {TIMED} or {OUT_OF_MEMORY}")
    if status == TIMED and not (isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0):
        raise UserError(f"{path}: a step of {seconds} seconds cannot be")
    device = label if label in (*DEVICES, this_machine.NAME) else named_like(board)
    title = DEVICES[device].title if device in DEVICES else str(label or board)
    timed = status == TIMED
    return Measured(device, title, settings, seconds if timed else None, spread if timed else None, record)
