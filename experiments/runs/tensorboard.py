"""Write the numbers of metrics.jsonl as scalars into TensorBoard's event files of a run."""

import os
import re
import struct
import time
from pathlib import Path
from typing import Any

from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]  # made at run time
from tensorboardX.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
from tensorboardX.record_writer import masked_crc32c

from experiments.runs.metric_columns import line_seconds, scalars

FILES = "events.out.tfevents.*"
FILE_VERSION = "brain.Event:2"  # the version that TensorBoard expects


class EventFiles:
    """A folder of event files, one for each start of a run, which together have each line's step once.

    Former files are cut off after the last line that the run continues from. The new file begins with a mark:
    there a TensorBoard that is open forgets the later steps that it has read. The mark alone
    (`purge_step`) would leave those steps in the files for every other reader.
    """

    def __init__(self, folder: Path, lines: list[dict[str, Any]], unit: str):
        """Begin a file.

        Args:
            lines: the lines of metrics.jsonl that the run continues from. If the former files lack any, as
                in a run of an older version without events, all are written again.
            unit: the column that is the step: round or update.
        """
        self._unit = unit
        folder.mkdir(exist_ok=True)
        former = sorted(folder.glob(FILES))
        steps = [line[unit] for line in lines]
        last = steps[-1] if steps else 0
        known = [held for path in former for held in _cut_off(path, last)]
        missing: list[tuple[dict[str, Any], float]] = []
        if [step for step, _ in known] != steps:
            # Empty the files and keep them: a TensorBoard that is open goes on from one file to the next.
            for path in former:
                _cut_off(path, 0)
            missing, last = list(zip(lines, _ended(lines, dict(known), unit), strict=True)), 0
        # TensorBoard reads files in the order of their names. They leave out the machine's name.
        self._writer = RecordWriter(str(_next_name(folder, former)))
        self._write(Event(wall_time=time.time(), file_version=FILE_VERSION))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=last + 1, session_log=start))
        for line, wall_time in missing:
            self._add(line, wall_time)
        self._writer.flush()

    def append(self, line: dict[str, Any]) -> None:
        """Add a line at the present time."""
        self._add(line, time.time())
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _add(self, line: dict[str, Any], wall_time: float) -> None:
        values = [
            Summary.Value(tag=name, simple_value=value) for name, value in scalars(line, self._unit).items()
        ]
        self._write(Event(wall_time=wall_time, step=line[self._unit], summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())


def _next_name(folder: Path, former: list[Path]) -> Path:
    """Name a file so that it comes after the others, even if the clock was set back."""
    before = [
        float(seconds[1]) for path in former if (seconds := re.match(r".*tfevents\.(\d+\.\d+)", path.name))
    ]
    seconds = max([time.time(), *(value + 1e-6 for value in before)])
    return folder / FILES.replace("*", f"{seconds:.6f}.w2v-jax")


def read_events(path: Path) -> list[tuple[Event, int]]:
    """Read the events of a file, each with the byte where it ends, up to one that is cut short or damaged."""
    held, at, events = path.read_bytes(), 0, []
    while at + 12 <= len(held):
        length, checksum = struct.unpack_from("<QI", held, at)
        record = held[at + 12 : at + 12 + length]
        end = at + 16 + length
        if checksum != masked_crc32c(held[at : at + 8]) or end > len(held):
            break
        if struct.unpack_from("<I", held, end - 4)[0] != masked_crc32c(record):
            break
        events.append((Event.FromString(record), end))
        at = end
    return events


def _cut_off(path: Path, last: int) -> list[tuple[int, float]]:
    """Cut a file off after a step, and return (step, wall time) of the events that are left."""
    kept, end = [], 0
    for event, ends in read_events(path):
        if event.HasField("summary"):
            if event.step > last:
                break
            kept.append((event.step, event.wall_time))
        end = ends
    if end < path.stat().st_size:
        os.truncate(path, end)
    return kept


def _ended(lines: list[dict[str, Any]], known: dict[int, float], unit: str) -> list[float]:
    """Find the wall times of lines; an unknown one is when the next line's work began, or now."""
    ended, after = [], time.time()
    for line in reversed(lines):
        after = known.get(line[unit], after)
        ended.append(after)
        after -= line_seconds(line)
    return ended[::-1]
