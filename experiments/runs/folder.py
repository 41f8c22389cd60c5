"""A run's folder: config.json, metrics.jsonl, events/, checkpoints/, reports. Survives being killed."""

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from experiments.process.files import finite_or_none, read_json, replace_file, write_json
from w2v_jax.config import ModelConfig
from w2v_jax.errors import UserError, is_disk_error, reason

if TYPE_CHECKING:
    from experiments.runs.tensorboard import EventFiles

LOCK = ".lock"  # held while a process runs in the folder
LOCK_TRIES, LOCK_RETRY_SECONDS = 10, 0.02
METRICS = "metrics.jsonl"
EVENTS = "events"  # the same for TensorBoard
DIAGNOSTICS = "diagnostics.jsonl"
OTHER_LINES = (DIAGNOSTICS,)  # files of a line a round that a run may have besides


class RunFolder:
    """One run on disk. Opening it checks that it belongs to the same settings."""

    def __init__(
        self,
        path: Path,
        settings: dict[str, Any],
        provenance: dict[str, Any],
        absent: dict[str, Any] | None = None,
        *,
        writes: bool = True,
    ):
        """Lock the folder, new or old; `begin` writes its config.json.

        Args:
            absent: values of settings that folders of older versions lack.
            writes: False in all but one of the processes of a run: they only read.

        Raises:
            UserError: it holds a run with other settings, or another process is running in it.
        """
        self.path = path
        config = path / "config.json"
        settings = json.loads(json.dumps(settings))
        self._config = {"settings": settings, "provenance": provenance}
        self.writes, self._lock = writes, None
        self._events: EventFiles | None = None
        if not writes:
            return
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file: choose another --out")
        if config.exists():
            held = upgraded((absent or {}) | read_config(path)["settings"])
            if held != settings:
                raise UserError(
                    f"{path} holds a run with other settings ({_differences(held, settings)}): "
                    "choose another --out, or give the same options to continue it"
                )
        elif path.exists() and (path / "metrics.jsonl").exists():
            raise UserError(f"{path} holds a run without its config.json: choose another --out")
        path.mkdir(parents=True, exist_ok=True)
        self._lock = (path / LOCK).open("w")
        if not _locked(self._lock):
            self._lock.close()
            raise UserError(f"{path} is in use by another process: wait for it or choose another --out")

    def begin(self) -> None:
        """Make it this run's folder. Input that turns out bad before leaves no settings behind.

        `starts.jsonl` gets a line with the provenance of every start, continuations included.
        """
        if not self.writes:
            return
        if not (self.path / "config.json").exists():
            write_json(self.path / "config.json", self._config)
        with (self.path / "starts.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(self._config["provenance"]) + "\n")

    def pin(self, name: str, value: Any, added: Sequence[str] = ()) -> None:
        """Write a JSON file once; a run that continues must find the same.

        Args:
            name: the file.
            value: its content.
            added: keys of a table that files of older versions lack, and then go without.

        Raises:
            UserError: it is there and says something else.
        """
        if not self.writes:
            return
        value = json.loads(json.dumps(finite_or_none(value)))
        path = self.path / name
        if path.exists() and added:
            held = read_json(path)
            value = {key: one for key, one in value.items() if key in held or key not in added}
        if path.exists() and read_json(path) != value:
            raise UserError(
                f"{path} differs from what this run would use now: its data, or the run that it starts from, "
                "changed since it began; choose another --out"
            )
        write_json(path, value)

    @property
    def provenance(self) -> dict[str, Any]:
        """How this start came about."""
        return self._config["provenance"]

    def close(self) -> None:
        """Let another process have the folder."""
        if self._events is not None:
            self._events.close()
        if self._lock is not None:
            self._lock.close()

    @property
    def metrics_path(self) -> Path:
        return self.path / METRICS

    def rewind(self, done: int, unit: str = "round") -> None:
        """Drop lines of rounds (or another unit) after `done`, and any cut short by a kill.

        TensorBoard's events are brought to the same lines, and follow them from here on.
        """
        if not self.writes:
            return
        from experiments.runs.tensorboard import EventFiles

        for path in (self.metrics_path, *(self.path / name for name in OTHER_LINES)):
            if path == self.metrics_path or path.exists():
                lines = [line for line in read_metrics(path) if line[unit] <= done]
                replace_file(path, "".join(json.dumps(line) + "\n" for line in lines))
        if self._events is not None:
            self._events.close()
        self._events = EventFiles(self.path / EVENTS, read_metrics(self.metrics_path), unit)

    def append(self, line: dict[str, Any], name: str = METRICS) -> None:
        """Add one round's line to a .jsonl; numbers that are not finite become null."""
        if not self.writes:
            return
        line = finite_or_none(line)
        with (self.path / name).open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
            out.flush()
            os.fsync(out.fileno())
        if name == METRICS and self._events is not None:
            self._events.append(line)


def in_use(folder: Path) -> bool:
    """Whether a process is running in a run's folder."""
    try:
        with (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _locked(lock: IO[str]) -> bool:
    """Lock a folder for this process; False where another one runs in it."""
    for _ in range(LOCK_TRIES):
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(LOCK_RETRY_SECONDS)  # `in_use` holds it for an instant
    return False


@contextlib.contextmanager
def continuing_after_disk_errors() -> Iterator[None]:
    """Turn a full or unwritable disk into one line that says how to go on.

    Raises:
        UserError: in place of the disk's error; others pass.
    """
    try:
        yield
    except OSError as error:
        if not is_disk_error(error):
            raise
        raise UserError(
            f"cannot write to the run folder ({reason(error)}): free some space and run the same "
            "command again; it continues from the last checkpoint"
        ) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a metrics.jsonl or its like; a last line cut short is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def upgraded(settings: dict[str, Any]) -> dict[str, Any]:
    """A run's settings with its model's fields as they are called today, new ones at their defaults."""
    if not isinstance(settings.get("model_config"), dict):
        return settings
    config = dataclasses.asdict(ModelConfig.from_dict(settings["model_config"]))
    return settings | {"model_config": json.loads(json.dumps(config))}


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config.json: `settings` and `provenance`.

    Raises:
        UserError: it is not one that a command of w2v-jax wrote.
    """
    path = folder / "config.json"
    try:
        config = read_json(path)
        if isinstance(config["settings"], dict) and isinstance(config["provenance"], dict):
            return config
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is not a config.json of a w2v-jax run: choose another folder")


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Nested settings as one level, `outer.inner`."""
    return {
        (f"{name}.{inner}" if inner else name): value
        for name, held in settings.items()
        for inner, value in (held.items() if isinstance(held, dict) else [("", held)])
    }


def _differences(held: dict[str, Any], wanted: dict[str, Any]) -> str:
    held, wanted = _flat(held), _flat(wanted)
    parts = [
        f"{key}: {held.get(key)} there, {wanted.get(key)} here"
        for key in sorted(held.keys() | wanted.keys())
        if held.get(key) != wanted.get(key)
    ]
    return "; ".join(parts[:4])
