"""Cells of studies: public commands of this CLI that resume, each in a process of its own."""

import concurrent.futures
import contextlib
import dataclasses
import os
import queue
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.options.errors import UsageError
from experiments.options.vocabulary import RESPELT_FIELDS, respell
from experiments.process.child_process import own_python
from experiments.process.files import read_json, write_json
from experiments.report.units import duration
from experiments.runs.lock import LOCK
from w2v_jax.errors import UserError

MOST_SEEDS, MOST_JOBS = 100, 64
STOP_SECONDS = 20.0  # time for an interrupted command to end by itself


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One command of a study.

    Attributes:
        name: name in the printed lines.
        arguments: words of the command without --out, e.g. ("pretrain", "--rounds", "3").
        out: its --out; the log lies beside it, as `<out>.log`.
        product: a file in `out` that exists only once the command has finished.
    """

    name: str
    arguments: tuple[str, ...]
    out: Path
    product: str

    @property
    def finished(self) -> bool:
        return (self.out / self.product).exists()

    @property
    def command(self) -> str:
        """The command as a user would type it."""
        return shlex.join(["w2v-jax", *self.arguments, "--out", str(self.out)])

    @property
    def log(self) -> Path:
        return self.out.with_name(self.out.name + ".log")

    @property
    def record(self) -> Path:
        return self.out / "cell.json"


def check_counts(options: Any) -> None:
    """Check --seeds and --jobs.

    Raises:
        UsageError: one is out of range.
    """
    for name, most in (("seeds", MOST_SEEDS), ("jobs", MOST_JOBS)):
        if not 1 <= (value := getattr(options, name)) <= most:
            raise UsageError(f"--{name} must be between 1 and {most}, got {value}")


def run_cells(
    cells: Sequence[Cell], title: str, jobs: int = 1, excused: str | None = None
) -> dict[str, float]:
    """Run the cells whose product is missing, in order, and print a line for each as it ends.

    Args:
        cells: cells with different names and folders.
        title: first word of the printed lines.
        jobs: cells that run side by side. Each has its share of the cores, so that their threads do not
            compete; its seconds are then those of a shared machine.
        excused: words of an error with which a cell may fail. It stays unfinished, and the others go on.

    Returns:
        Wall seconds of each cell by name, over all attempts that were not killed. Cells that another command
        finished are left out.

    Raises:
        UserError: a folder holds another command's results, or a command failed. The other running commands
            are stopped; the same call continues them.
        KeyboardInterrupt: after the running commands have stopped; the same call continues them.
    """
    if len({cell.out for cell in cells}) < len(cells) or len({cell.name for cell in cells}) < len(cells):
        raise ValueError("cells must have different names and folders")
    for cell in cells:
        _check_command(cell)
    left = [cell for cell in cells if not cell.finished]
    places = {cell.name: number for number, cell in enumerate(cells, start=1)}
    print(f"{title}: {len(cells)} cells, {len(cells) - len(left)} of them finished before", flush=True)
    started, ended, processes = time.perf_counter(), 0, _Processes(_shares(jobs))
    with _terminable(), concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(_run, cell, processes, excused): cell for cell in left}
        try:
            for future in concurrent.futures.as_completed(running):
                try:
                    seconds = future.result()
                except _StoppedError:
                    continue
                ended += 1
                remaining = duration((time.perf_counter() - started) / ended * (len(left) - ended))
                name = running[future].name
                place = f"cell {places[name]}/{len(cells)} {name}"
                print(f"{place}: {duration(seconds)}, about {remaining} left", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop()
            raise
    return {cell.name: _read_record(cell)["seconds"] for cell in cells if cell.record.exists()}


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that this process stops its commands before it ends."""

    def end(signum: int, frame: Any) -> None:
        raise SystemExit(128 + signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _shares(jobs: int) -> list[set[int]]:
    """Deal the cores to `jobs` commands, disjoint where there are enough; empty sets set no cores."""
    if jobs == 1 or not hasattr(os, "sched_setaffinity"):
        return [set()] * jobs
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[job::jobs]) or {cores[job % len(cores)]} for job in range(jobs)]


class _StoppedError(Exception):
    """A command was stopped, or was not started, because another one failed."""


class _Processes:
    """The running commands, which `stop` ends together."""

    def __init__(self, shares: Sequence[set[int]]):
        self._lock, self._running, self._stopped = threading.Lock(), set[subprocess.Popen](), False
        self._shares = queue.SimpleQueue[set[int]]()
        for share in shares:
            self._shares.put(share)

    def run(self, argv: Sequence[str], log: Any) -> int | None:
        """Run a command on a share of the cores; return its exit status, None once all were stopped."""
        share = self._shares.get()
        try:
            process = self._start(argv, log, share)
            status = process.wait() if process else None
            return None if self._stopped else status
        finally:
            self._shares.put(share)

    def _start(self, argv: Sequence[str], log: Any, share: set[int]) -> subprocess.Popen | None:
        with self._lock:
            if self._stopped:
                return None
            # It gets a session of its own: Ctrl-C then reaches it only once, through stop().
            process = subprocess.Popen(
                argv,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            if share:
                with contextlib.suppress(ProcessLookupError):  # it has ended already
                    os.sched_setaffinity(process.pid, share)
            self._running.add(process)
            return process

    @property
    def stopped(self) -> bool:
        """Tell whether no further command may start."""
        return self._stopped

    def stop(self) -> None:
        """End all running commands, and start no further ones."""
        with self._lock:
            self._stopped = True
        for process in self._running:
            _stop(process)


def _read_record(cell: Cell) -> dict[str, Any]:
    return read_json(cell.record)


def _check_command(cell: Cell) -> None:
    """Refuse a folder of another command; options that are spelt otherwise now make no other command."""
    if not cell.record.exists():
        return
    held = _read_record(cell)["command"]
    if respell(shlex.split(held), RESPELT_FIELDS) != respell(shlex.split(cell.command), RESPELT_FIELDS):
        raise UserError(
            f"{cell.out} was made by another command ({held}), this one is {cell.command}: "
            "choose another --out, or give the same options to continue"
        )


def _run(cell: Cell, processes: _Processes, excused: str | None) -> float:
    """Run a cell to its end and return the seconds of this attempt; the cell's record adds them up.

    A failure stops the other commands here, before this thread begins the next cell.
    """
    try:
        return _run_whole(cell, processes, excused)
    except UserError:
        processes.stop()
        raise


def _run_whole(cell: Cell, processes: _Processes, excused: str | None) -> float:
    if processes.stopped:
        raise _StoppedError
    cell.out.mkdir(parents=True, exist_ok=True)
    _note(cell, 0.0)  # the record names the command even if this process is killed
    argv = [*own_python(), "-m", "experiments", *cell.arguments, "--out", str(cell.out)]
    started = time.perf_counter()
    with cell.log.open("ab") as log:
        before = log.tell()
        status = processes.run(argv, log)
        seconds = time.perf_counter() - started
        _note(cell, seconds)
    if not any(path not in (cell.record, cell.out / LOCK) for path in cell.out.iterdir()):
        # The command made nothing: another command may use the folder.
        shutil.rmtree(cell.out)
    if status is None:
        raise _StoppedError
    if status != 0 or not cell.finished:
        with cell.log.open("rb") as log:
            log.seek(before)
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
        if excused and lines and excused in lines[-1]:
            print(f"{cell.name}: {lines[-1].strip()}", flush=True)
            return seconds
        what = f"ended with status {status}" if status else f"ended without {cell.product}"
        raise UserError(
            f"cell {cell.name} {what} ({lines[-1].strip() if lines else 'it printed nothing'}; whole log: "
            f"{cell.log}): fix this, then run the same command to continue"
        )
    return seconds


def _note(cell: Cell, seconds: float) -> None:
    """Add the seconds of an attempt to the cell's record."""
    before = _read_record(cell)["seconds"] if cell.record.exists() else 0.0
    write_json(cell.record, {"seconds": before + seconds, "command": cell.command})


def _stop(process: subprocess.Popen) -> None:
    """Interrupt a process as Ctrl-C does, and kill it if it does not end in STOP_SECONDS."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
