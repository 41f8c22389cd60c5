"""A run's folder: config.json, metrics.jsonl, events/, checkpoints/, reports. Survives being killed."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from experiments.process.files import finite_or_none, read_json, replace_file, write_json
from experiments.runs.lock import LOCK, locked
from w2v_jax.config import ModelConfig
from w2v_jax.errors import UserError, is_disk_error, reason

if TYPE_CHECKING:
    from experiments.runs.tensorboard import EventFiles
    from experiments.runs.tracking import Tracker

METRICS = "metrics.jsonl"
EVENTS = "events"  # the folder of the same numbers for TensorBoard
DIAGNOSTICS = "diagnostics.jsonl"
OTHER_LINES = (DIAGNOSTICS,)  # further files with a line for each round, which some runs have


class RunFolder:
    """One run on disk. Opening it checks that it belongs to the same settings.

    Attributes:
        path: the folder.
        settings: the run's settings, with those that the folder keeps.
        writes: whether this process writes; others of the same run only read.
        planned_before: length of the former plan of a run that is lengthened; None for any other run.
    """

    def __init__(
        self,
        path: Path,
        settings: dict[str, Any],
        provenance: dict[str, Any],
        absent: dict[str, Any] | None = None,
        *,
        writes: bool = True,
        keeps: Sequence[str] = (),
        may_grow: str | None = None,
        track: str | None = None,
    ):
        """Lock the folder, new or old; `begin` writes its config.json.

        Args:
            absent: values of settings that folders of older versions lack.
            writes: False in all but one of the processes of a run: they only read.
            keeps: settings for which the value in the folder counts, where there is one.
            may_grow: the setting that is the run's length, which may be larger than in the folder.
            track: the library that gets the scalars of metrics.jsonl too (runs.tracking); None for none.

        Raises:
            UserError: it holds a run with other settings, or another process is running in it.
        """
        self.path, self.writes = path, writes
        self.planned_before: int | None = None
        self._longer: dict[str, Any] = {}
        self._lock: IO[str] | None = None
        self._track = track
        self._followers: list[EventFiles | Tracker] = []  # get each line of metrics.jsonl
        settings = json.loads(json.dumps(settings))
        self._config: dict[str, Any] = {"settings": settings, "provenance": provenance}
        config = path / "config.json"
        if writes and path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file: choose another --out")
        if config.exists():
            self._continue(read_config(path), absent or {}, keeps, may_grow)
        elif writes and (path / "metrics.jsonl").exists():
            raise UserError(f"{path} holds a run without its config.json: choose another --out")
        if not writes:
            return
        path.mkdir(parents=True, exist_ok=True)
        self._lock = (path / LOCK).open("w")
        if not locked(self._lock):
            self._lock.close()
            raise UserError(f"{path} is in use by another process: wait for it or choose another --out")

    def _continue(
        self, config: dict[str, Any], absent: dict[str, Any], keeps: Sequence[str], may_grow: str | None
    ) -> None:
        """Compare the settings with those in the folder; only the process that writes refuses others."""
        settings, held = self.settings, upgraded(json.loads(json.dumps(absent)) | config["settings"])
        settings |= {name: held[name] for name in keeps if name in held}
        if held == settings or not self.writes:
            return
        length = may_grow or ""
        before, now = held.get(length), settings.get(length)
        grown = isinstance(before, int) and isinstance(now, int) and now > before
        if not grown or held | {length: now} != settings:
            raise UserError(
                f"{self.path} holds a run with other settings ({_differences(held, settings)}): "
                "choose another --out, or give the same options to continue it"
            )
        self.planned_before = before
        # The provenance of the run's beginning stays; that of this start comes into starts.jsonl.
        self._longer = {"lengthened": [], **config, "settings": config["settings"] | {length: now}}

    @property
    def settings(self) -> dict[str, Any]:
        return self._config["settings"]

    def begin(self) -> None:
        """Write config.json, and this start's provenance into starts.jsonl.

        Call it once the input has been checked, so that bad input leaves no settings behind.
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
            added: keys of a table, or of tables in it, that older files lack, and then go without.

        Raises:
            UserError: the file exists with another content.
        """
        if not self.writes:
            return
        value = json.loads(json.dumps(finite_or_none(value)))
        path = self.path / name
        if path.exists() and added:
            value = _as_held(value, read_json(path), added)
        if path.exists() and read_json(path) != value:
            raise UserError(
                f"{path} differs from what this run would use now: its data, the run that it starts "
                "from, or the file of its algorithm changed since it began; choose another --out"
            )
        write_json(path, value)

    @property
    def provenance(self) -> dict[str, Any]:
        """The provenance of this start."""
        return self._config["provenance"]

    def close(self) -> None:
        """Release the folder, so that another process can run in it."""
        for follower in self._followers:
            follower.close()
        if self._lock is not None:
            self._lock.close()

    @property
    def metrics_path(self) -> Path:
        return self.path / METRICS

    def rewind(self, done: int, unit: str = "round") -> None:
        """Drop lines of rounds (or another unit) after `done`, and any cut short by a kill.

        TensorBoard's events are brought to the same lines, and follow them from here on, as a tracker does.
        The config.json of a run that is lengthened gets its new length, and in `lengthened` where the former
        plan ended.
        """
        if not self.writes:
            return
        if self.planned_before is not None:
            self._longer["lengthened"] += [{"planned": self.planned_before, "after": done}]
            write_json(self.path / "config.json", self._longer)
        from experiments.runs.tensorboard import EventFiles

        for path in (self.metrics_path, *(self.path / name for name in OTHER_LINES)):
            if path == self.metrics_path or path.exists():
                lines = [line for line in read_metrics(path) if line[unit] <= done]
                replace_file(path, "".join(json.dumps(line) + "\n" for line in lines))
        for follower in self._followers:
            follower.close()
        lines = read_metrics(self.metrics_path)
        self._followers = [EventFiles(self.path / EVENTS, lines, unit)]
        if self._track is not None:
            from experiments.runs.tracking import Tracker

            self._followers.append(Tracker(self._track, self.path, self.settings, lines, unit))

    def append(self, line: dict[str, Any], name: str = METRICS) -> None:
        """Add one round's line to a .jsonl file; numbers that are not finite become null."""
        if not self.writes:
            return
        line = finite_or_none(line)
        with (self.path / name).open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
            out.flush()
            os.fsync(out.fileno())
        for follower in self._followers if name == METRICS else ():
            follower.append(line)


def _as_held(value: Any, held: Any, added: Sequence[str]) -> Any:
    """Leave out the added keys that the tables of an older file lack."""
    if not isinstance(value, dict) or not isinstance(held, dict):
        return value
    return {
        key: _as_held(one, held.get(key), added)
        for key, one in value.items()
        if key in held or key not in added
    }


@contextlib.contextmanager
def continuing_after_disk_errors() -> Iterator[None]:
    """Turn the error of a full or unwritable disk into one line that says how to go on.

    Raises:
        UserError: in place of the disk's error; other errors pass.
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
    """Read the lines of a metrics.jsonl or a like file; a last line cut short is left out."""
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
    """Bring a run's model_config up to date: today's names, and new fields at their defaults."""
    if not isinstance(settings.get("model_config"), dict):
        return settings
    config = dataclasses.asdict(ModelConfig.from_dict(settings["model_config"]))
    return settings | {"model_config": json.loads(json.dumps(config))}


def read_config(folder: Path) -> dict[str, Any]:
    """Read a run's config.json: `settings`, `provenance`, and `lengthened` if the run was.

    Raises:
        UserError: no command of w2v-jax wrote it.
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
    """Flatten nested settings to one level, named `outer.inner`."""
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
