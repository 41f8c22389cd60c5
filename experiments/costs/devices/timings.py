"""Read and check timings.json, which runner.py writes on a board."""

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
        device: name of the board in the catalogue of devices, or None for an unknown board.
        title: name of the board for readers.
        settings: settings of the step, as in experiments.costs.step.training_step.StepSettings.
        seconds: median seconds of a step; None where memory ran out.
        spread: (p90 - p10) / median; None where memory ran out.
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
        """Return (model, batch, precision)."""
        return self.settings["model"], self.settings["batch"], self.settings["precision"]


def read_timings(path: Path) -> Measured:
    """Read and check a timings.json.

    Raises:
        UserError: the file is missing, is no timings.json, or holds a wrong result or impossible figures.
    """
    try:
        record = read_json(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError:
        raise UserError(f"{path} is no complete JSON: copy the timings.json of runner.py again") from None
    try:
        if record["format"] != runner.FORMAT:
            raise UserError(
                f"{path} has format {record['format']}; this version reads format {runner.FORMAT}"
            )
        settings = {name: record["artifact"]["settings"][name] for name in SETTINGS}
        status, label = record["status"], record["device"]
        board = record["board"].get("model") or record["board"].get("cpu") or "a board without a name"
        seconds, spread = (record.get(name) for name in ("median_seconds", "spread"))
    except (KeyError, TypeError, AttributeError) as error:
        missing = f": no {error}" if isinstance(error, KeyError) else ""
        raise UserError(f"{path} is not a timings.json of runner.py{missing}") from None
    if status == WRONG:
        raise UserError(f"{path}: the step gave wrong numbers on {board}, so its times are not used")
    if status not in (TIMED, OUT_OF_MEMORY):
        raise UserError(f"{path}: unknown status {status!r}; expected {TIMED} or {OUT_OF_MEMORY}")
    if status == TIMED and not (isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0):
        raise UserError(f"{path}: a step cannot take {seconds} seconds; run runner.py again")
    device = label if label in (*DEVICES, this_machine.NAME) else named_like(board)
    title = DEVICES[device].title if device in DEVICES else str(label or board)
    timed = status == TIMED
    return Measured(device, title, settings, seconds if timed else None, spread if timed else None, record)
