"""The state of a run as another process sees it: its settings, its progress, whether it is running."""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

from experiments.options.errors import UsageError
from experiments.process.files import read_json
from experiments.runs.folder import METRICS, read_config
from experiments.runs.lock import in_use
from experiments.runs.metric_columns import line_seconds
from experiments.runs.tasks import Task, task_of, with_shares
from experiments.watch.jsonl_tail import JsonLines
from w2v_jax.errors import UserError

State = Literal["starting", "running", "finishing", "stopped", "done"]
RECENT_LINES = 20  # the seconds of a step are their mean
REPORT = "report.html"  # the file that a run writes last


@dataclasses.dataclass(frozen=True)
class RunState:
    """A run at one moment.

    Attributes:
        folder: the run folder, as the user named it.
        settings: settings of its config.json.
        unit: the unit that its lines count: round or update.
        task: its task; None for a run of finetune.
        lines: lines of its metrics.jsonl, without lists, and with their shares.
        total: rounds or updates of the whole run; None while a fine-tuning run has not written it yet.
        state: `stopped` if no process is at work and the run is not done.
        silent_seconds: seconds since the last line; None without lines.
    """

    folder: Path
    settings: dict[str, Any]
    unit: str
    task: Task | None
    lines: list[dict[str, Any]]
    total: int | None
    state: State
    silent_seconds: float | None

    @property
    def done(self) -> int:
        """Rounds or updates that are finished."""
        return self.lines[-1][self.unit] if self.lines else 0

    @property
    def step_seconds(self) -> float | None:
        """Mean seconds of recent rounds or updates with evaluations; the first is left out: it compiled."""
        if not self.lines:
            return None
        recent = self.lines[1:][-RECENT_LINES:] or self.lines
        earlier = self.lines[: -len(recent)]
        before = earlier[-1][self.unit] if earlier else 0
        return sum(map(line_seconds, recent)) / max(1, self.done - before)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end at the recent pace; None if it is unknown, as after a first line."""
        if self.state != "running" or self.total is None or len(self.lines) < 2:
            return None
        assert self.step_seconds is not None
        return max(0.0, self.step_seconds * (self.total - self.done) - (self.silent_seconds or 0.0))

    def latest(self, column: str) -> dict[str, Any] | None:
        """Find the last line with a value in a column."""
        return next((line for line in reversed(self.lines) if line.get(column) is not None), None)


class RunReader:
    """Reads the state of a run of pretrain or finetune from its folder, again and again."""

    def __init__(self, folder: Path):
        """Check that the folder is a run folder.

        Raises:
            UsageError, UserError: it is none.
        """
        self.folder = folder
        if not folder.exists():
            raise UsageError(f"no such folder: {folder} (name a run folder of w2v-jax pretrain or finetune)")
        if not folder.is_dir():
            raise UsageError(f"{folder} is a file: name the run folder that it is in")
        # A run has its config.json a moment before its metrics.jsonl.
        needed = ["config.json"] if in_use(folder) else ["config.json", METRICS]
        if missing := [name for name in needed if not (folder / name).exists()]:
            inside = sorted(path.parent for path in folder.glob(f"*/{METRICS}"))
            hint = f"; did you mean {inside[0]} in it?" if inside else ""
            raise UsageError(
                f"{folder} is not a run folder of w2v-jax pretrain or finetune "
                f"(no {' or '.join(missing)}){hint}"
            )
        self._settings = read_config(folder)["settings"]
        if not {"rounds", "updates"} & self._settings.keys():
            raise UsageError(
                f"{folder / 'config.json'} was written by another command: name a run of w2v-jax pretrain or "
                "finetune"
            )
        self._unit = "round" if "preset" in self._settings else "update"  # of pretrain alone
        self._task = task_of(self._settings) if self._unit == "round" else None
        self._lines = JsonLines(folder / METRICS)

    def read(self) -> RunState:
        """Read the run's state of this moment.

        Raises:
            UserError: the folder is gone.
        """
        if not self.folder.is_dir():
            raise UserError(f"{self.folder} is gone: name a run folder that is there")
        busy = in_use(
            self.folder
        )  # before its lines: a run that ends in between is shown as running once more
        lines = [line for line in self._lines.read() if isinstance(line.get(self._unit), int)]
        if self._task is not None:
            lines = [with_shares(line, self._task) for line in lines]
        total, modified = self._total(), self._lines.modified_seconds
        complete = bool(lines) and lines[-1][self._unit] == total
        state: State
        if busy:
            state = "finishing" if complete else "running" if lines else "starting"
        else:
            state = "done" if complete and (self.folder / REPORT).exists() else "stopped"
        silent = max(0.0, time.time() - modified) if lines and modified is not None else None
        return RunState(self.folder, self._settings, self._unit, self._task, lines, total, state, silent)

    def _total(self) -> int | None:
        if self._unit == "round":
            return self._settings["rounds"]
        data = self.folder / "data.json"
        return self._settings["updates"] or (read_json(data).get("updates") if data.exists() else None)
